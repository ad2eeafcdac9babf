"""The table of parts: which class stands behind a section of the file.

Filled from the entry-point group `headrace.parts`; a class is imported only when it is needed,
because importing all of them takes longer than most commands run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module, metadata

from headrace.core.errors import ConfigError
from headrace.core.part import Part

GROUP = "headrace.parts"

#: The stream is there before anybody reads or writes; the agent feeds last.
START_ORDER = ("stream", "sinks", "triggers", "agent")

#: Nothing new comes in, what is in hand goes through, the stream answers until the end.
DRAIN_ORDER = ("agent", "triggers", "sinks", "stream")


class PartTable:
    """Section name -> where its class is (`module:Class`)."""

    def __init__(self, references: Mapping[str, str]) -> None:
        self._references = dict(references)

    def __iter__(self) -> Iterator[str]:
        return iter(self._references)

    def __contains__(self, section: object) -> bool:
        return section in self._references

    def reference(self, section: str) -> str:
        return self._references[section]

    def load(self, section: str) -> type[Part]:
        """Import a part's class.

        Raises:
            ConfigError: it cannot be imported, or is not a part.
        """
        return load_part(self._references[section])


def load_part(reference: str) -> type[Part]:
    """`module:Class` -> the class. Raises ConfigError when it is not there or not a part."""
    module_name, _, class_name = reference.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the part {reference} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Part)):
        raise ConfigError(f"{reference} is not a headrace.core.part.Part")
    return found


def installed_parts() -> PartTable:
    """The parts of this environment.

    Raises:
        ConfigError: there are none, because the package runs from a checkout without being
            installed.
    """
    found = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    if not found:
        raise ConfigError(
            "no parts are installed in this environment", hint="install it: pip install -e ."
        )
    return PartTable(found)


def in_order(sections: Iterable[str], order: tuple[str, ...]) -> list[str]:
    """Sections sorted by an order; ones it does not name come between the first and the last."""
    rank = {section: i for i, section in enumerate(order)}
    return sorted(sections, key=lambda s: (rank.get(s, len(order) / 2 - 0.5), s))
