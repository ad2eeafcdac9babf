"""What a section's schema knows about a path: the keys allowed there, and whether it is secret.

Works on the JSON schema pydantic makes of any model, so that it need not know pydantic's insides.
"""

from __future__ import annotations

import re
from typing import Any

from headrace.pipeline.config.document import Path

_SECRET_NAME = re.compile(
    r"secret|password|passwd|token|credential|private|api_?key", re.IGNORECASE
)


class Shape:
    """A JSON schema that can be asked about paths."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        self._definitions: dict[str, Any] = schema.get("$defs", {})

    def known_keys(self, path: Path) -> list[str]:
        """The keys a mapping at this path may have; empty where any are allowed."""
        keys: dict[str, None] = {}
        for schema in self._at(path):
            keys.update(dict.fromkeys(schema.get("properties", {})))
        return list(keys)

    def choices(self, path: Path) -> list[str]:
        """The words a value at this path may be, where it is one of a few."""
        found: dict[str, None] = {}
        for schema in self._at(path):
            values = schema.get("enum", [schema["const"]] if "const" in schema else [])
            found.update(dict.fromkeys(v for v in values if isinstance(v, str)))
        return list(found)

    def is_secret(self, path: Path) -> bool:
        """Whether the value is a secret by its type, or may be one by its key's name."""
        if any(isinstance(step, str) and _SECRET_NAME.search(step) for step in path):
            return True
        return any(schema.get("format") == "password" for schema in self._at(path))

    def _at(self, path: Path) -> list[dict[str, Any]]:
        found = self._variants(self._root)
        for step in path:
            found = [v for schema in found for v in self._step(schema, step)]
        return found

    def _step(self, schema: dict[str, Any], step: str | int) -> list[dict[str, Any]]:
        if isinstance(step, int):
            prefix = schema.get("prefixItems", [])
            item = prefix[step] if step < len(prefix) else schema.get("items")
        else:
            item = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
        return self._variants(item) if isinstance(item, dict) else []

    def _variants(self, schema: dict[str, Any]) -> list[dict[str, Any]]:
        """The schema with references followed and alternatives laid side by side."""
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema = self._definitions.get(reference.rsplit("/", 1)[-1], {})
        found = [schema]
        for word in ("anyOf", "oneOf", "allOf"):
            for variant in schema.get(word, []):
                found.extend(self._variants(variant))
        return found
