"""A pipeline's YAML file, read and checked: what `up`, `check` and every part verb begin with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from headrace.core.errors import ConfigError
from headrace.core.part import Finding, Part, StreamTarget
from headrace.core.stream_section import StreamSection
from headrace.pipeline.config.document import Path as KeyPath
from headrace.pipeline.config.document import Problem
from headrace.pipeline.config.explain import explain, nearest
from headrace.pipeline.config.loader import load
from headrace.pipeline.config.render import as_dicts, render
from headrace.pipeline.config.shape import Shape
from headrace.pipeline.parts import PartTable

DEFAULT_DATA = "./data"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFile:
    """A file without errors.

    `raw` has each section's values as the YAML gave them (variables expanded, secrets in
    plain), for handing to a part's process; `sections` has them validated.
    """

    path: Path
    data: Path
    target: StreamTarget
    raw: dict[str, Any] = dataclass_field(repr=False)
    sections: dict[str, Any]
    runs_stream: bool

    @property
    def base(self) -> Path:
        """The folder relative paths in the file start from."""
        return self.path.parent

    def running_sections(self) -> list[str]:
        """The sections that become processes: all of them, but not a stream that is elsewhere."""
        return [s for s in self.sections if s != "stream" or self.runs_stream]


class Reading:
    """One file on its way from text to PipelineFile, gathering every problem on it."""

    def __init__(
        self, path: Path, parts: PartTable, environment: Mapping[str, str] | None = None
    ) -> None:
        self._path = path
        self._parts = parts
        self._shapes: dict[str, _Section] = {}
        self._sections: dict[str, Any] = {}
        self.document = load(_read(path), name=str(path), environment=environment)
        self.problems: list[Problem] = list(self.document.problems)
        self._validate()
        self._cross_check()
        self.problems.sort(key=lambda p: (p.line, p.column))

    @property
    def has_errors(self) -> bool:
        return any(problem.is_error for problem in self.problems)

    def text(self) -> str:
        """The findings for people; empty when there are none."""
        return render(self.problems, self.document, self._is_secret)

    def dicts(self) -> list[dict[str, Any]]:
        """The findings for programs."""
        return as_dicts(self.problems, self.document)

    def pipeline(self) -> PipelineFile:
        """The file, if it has no errors.

        Raises:
            ConfigError: it has; the message holds all findings.
        """
        if self.has_errors:
            raise ConfigError(self.text())
        stream = self._sections.get("stream")
        section = stream if isinstance(stream, StreamSection) else StreamSection.model_validate({})
        values = self.document.value
        base = self._path.resolve().parent
        data = base / Path(str(values.get("data") or DEFAULT_DATA)).expanduser()
        return PipelineFile(
            path=self._path.resolve(),
            data=data.resolve(),
            target=section.target(data=data.resolve() / "stream", base=base),
            raw={name: _section_value(values[name]) for name in self._sections},
            sections=dict(self._sections),
            runs_stream=stream is not None and section.endpoint is None,
        )

    def _validate(self) -> None:
        document = self.document
        if document.value is None:
            if not self.problems:
                self._at_top("the file is empty; configs/pipeline.yaml shows a whole one")
            return
        if not isinstance(document.value, dict):
            self._at_top(f"expected the keys {', '.join(['data', *self._parts])} at the top")
            return
        for name, value in document.value.items():
            if name == "data":
                self._validate_data(value)
            elif name in self._parts:
                self._validate_section(name, value)
            else:
                near = nearest(name, ["data", *self._parts])
                self._at((name,), f"unknown key{near}", at_key=True)

    def _validate_data(self, value: Any) -> None:
        refused = any(p.path == ("data",) for p in self.problems)
        if not refused and not (isinstance(value, str) and value):
            self._at(("data",), "expected the path of a folder, such as ./data")

    def _validate_section(self, name: str, value: Any) -> None:
        try:
            section = self._shapes[name] = _Section(self._parts.load(name))
        except ConfigError as error:
            self._at((name,), str(error), at_key=True)
            return
        try:
            self._sections[name] = section.adapter.validate_python(_section_value(value))
        except ValidationError as error:
            errors = error.errors(include_url=False)
            self.problems += explain(
                errors, section=name, document=self.document, shape=section.shape
            )

    def _cross_check(self) -> None:
        stream = self._sections.get("stream")
        streams = stream.declared_names() if isinstance(stream, StreamSection) else None
        for name, config in self._sections.items():
            part = self._shapes[name].part
            base = self._path.resolve().parent
            for finding in part.check(config, base=base, streams=streams):
                self.problems.append(self._from_finding(name, finding))

    def _from_finding(self, section: str, finding: Finding) -> Problem:
        path: KeyPath = (section,)
        for step in finding.loc:
            if (*path, step) in self.document.places:
                path = (*path, step)
        place = self.document.places[path]
        line, column = place.start if len(path) > 1 else (place.key or place.start)
        message = finding.message if not finding.hint else f"{finding.message} ({finding.hint})"
        full: KeyPath = (section, *finding.loc)
        return Problem(
            line=line, column=column, path=full, message=message, is_error=finding.is_error
        )

    def _at(self, path: KeyPath, message: str, *, at_key: bool = False) -> None:
        place = self.document.places[path]
        line, column = (place.key if at_key else None) or place.start
        self.problems.append(Problem(line=line, column=column, path=path, message=message))

    def _at_top(self, message: str) -> None:
        self.problems.append(Problem(line=1, column=1, path=(), message=message))

    def _is_secret(self, path: KeyPath) -> bool:
        section = self._shapes.get(str(path[0])) if path else None
        shape = section.shape if section else Shape({})
        return any(shape.is_secret(path[1:end]) for end in range(2, len(path) + 1))


@dataclass(slots=False)
class _Section:
    """A part's schema, and what can be asked about it."""

    part: type[Part]
    adapter: TypeAdapter[Any] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        self.adapter = TypeAdapter(self.part.schema)

    @cached_property
    def shape(self) -> Shape:
        try:
            return Shape(self.adapter.json_schema())
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
            return Shape({})  # an exotic type costs the suggestions, not the message


def read_pipeline(
    path: Path, parts: PartTable, environment: Mapping[str, str] | None = None
) -> PipelineFile:
    """Read and check a pipeline's file.

    Raises:
        ConfigError: everything wrong with it, one finding a line with its source below.
    """
    return Reading(path, parts, environment).pipeline()


def _section_value(value: Any) -> Any:
    """`stream:` with nothing behind it is the section with all its defaults."""
    return {} if value is None else value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name the YAML file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
