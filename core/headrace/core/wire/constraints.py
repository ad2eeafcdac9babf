"""The constraints of one shape, and AWS's sentences for what breaks them.

Owns: bounds, patterns and enums, and how a value is shown in a validation error. The sentences are
those asserted against AWS by the kinesalite project's tests.

Deviations from the model, each with its reason:

* `.*` in a pattern does not cross a colon. All such patterns are those of ARNs, whose parts cannot
  hold one, and as the model has them a name of 2 KB keeps a processor busy for over a second.
* A pattern is not tried on text longer than the shape's maximum: the length is reported alone,
  where AWS would report the pattern too. Same reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from headrace.core.wire.conversion import MAX_SHOWN_CHARS
from headrace.core.wire.service_model import Shape

NOT_NULL = "Member must not be null"
# Escapes and character classes are tokens so that a `.*` inside one is not taken for a wildcard.
_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\.\*")
_NUMBERS = frozenset({"integer", "long"})
# The order AWS lists an enum in is that of a Java hash table of this size: it explains all of the
# nine enums whose order is known (ShardIteratorType and EncryptionType here, seven of DynamoDB).
_ENUM_TABLE_SIZE = 32


class Constraints:
    """What a shape demands of a value beyond its type."""

    __slots__ = (
        "_at_least",
        "_at_most",
        "_enum",
        "_enum_text",
        "_is_any",
        "_is_number",
        "_pattern_text",
        "_shape",
        "maximum",
        "minimum",
        "regex",
    )

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._is_number = shape.kind in _NUMBERS
        measured = "value" if self._is_number else "length"
        # The model says `min: 0` of lengths too, which holds of any: not worth a look each time.
        self.minimum = shape.minimum if shape.minimum or self._is_number else None
        self.maximum = shape.maximum
        self._at_least = f"Member must have {measured} greater than or equal to {shape.minimum}"
        self._at_most = f"Member must have {measured} less than or equal to {shape.maximum}"
        self.regex = None if shape.pattern is None else compile_pattern(shape.pattern)
        self._pattern_text = f"Member must satisfy regular expression pattern: {shape.pattern}"
        self._enum = frozenset(shape.enum) or None
        self._enum_text = (
            f"Member must satisfy enum value set: [{', '.join(aws_order(shape.enum))}]"
        )

        bounded = self.minimum is not None or self.maximum is not None
        self._is_any = bounded or self.regex is not None or self._enum is not None

    def broken(self, value: Any) -> Sequence[str]:
        """The sentences this value breaks; none when it is good. `value` has the shape's type."""
        if not self._is_any:
            return ()
        size: int = value if self._is_number else len(value)
        too_small = self.minimum is not None and size < self.minimum
        too_large = self.maximum is not None and size > self.maximum
        other_form = (
            self.regex is not None and not too_large and self.regex.fullmatch(value) is None
        )
        not_listed = self._enum is not None and value not in self._enum
        if not (too_small or too_large or other_form or not_listed):
            return ()
        each = (
            (other_form, self._pattern_text),
            (too_small, self._at_least),
            (too_large, self._at_most),
            (not_listed, self._enum_text),
        )
        return [sentence for is_broken, sentence in each if is_broken]

    def all_of(self) -> str:
        """Every sentence in brackets: how AWS reports one bad scalar in a list or map."""
        sentences = []
        if self.maximum is not None:
            sentences.append(self._at_most)
        if self._shape.minimum is not None:
            sentences.append(self._at_least)
        if self.regex is not None:
            sentences.append(self._pattern_text)
        if self._enum:
            sentences.append(self._enum_text)
        return f"[{', '.join(sentences or [NOT_NULL])}]"


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of the model, as Java reads it (ASCII classes); to be matched in full."""
    within_a_part = _TOKEN.sub(lambda token: r"[^:\n]*" if token[0] == ".*" else token[0], pattern)
    return re.compile(within_a_part, re.ASCII)


def aws_order(values: tuple[str, ...]) -> list[str]:
    """An enum's values in the order in which AWS lists them."""
    return sorted(values, key=lambda text: _java_hash(text) % _ENUM_TABLE_SIZE)


def _java_hash(text: str) -> int:
    result = 0
    for character in text:
        result = (31 * result + ord(character)) & 0xFFFF_FFFF
    return result


def shown(value: object, shape: Shape) -> str | None:
    """A value as errors show it, or None where AWS shows none: blobs, lists of structures, and
    what would be long."""
    if shape.sensitive or isinstance(value, bytes):
        return None
    if isinstance(value, list | dict) and len(value) > MAX_SHOWN_CHARS:
        return None
    if isinstance(value, list):
        if any(isinstance(item, dict | list | bytes) for item in value):
            return None
        text = f"[{', '.join(map(_plain, value))}]"
    elif isinstance(value, dict):
        if any(isinstance(item, dict | list | bytes) for item in value.values()):
            return None
        text = f"{{{', '.join(f'{_plain(k)}={_plain(v)}' for k, v in value.items())}}}"
    else:
        text = _plain(value)
    return text if len(text) <= MAX_SHOWN_CHARS else None


def _plain(value: object) -> str:
    return "null" if value is None else str(value)
