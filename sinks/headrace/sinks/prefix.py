"""`!{timestamp:yyyy/MM/dd/HH}`: Firehose prefix expressions -> the path of a file.

An expression is a pure function of one instant, the arrival of the oldest record of a plan; it
never asks what time it is, so a plan that is done again after a crash gives the same path.

Pattern letters are those of Java's DateTimeFormatter, evaluated in UTC, English names:

| letters | meaning                | letters | meaning                         |
|---------|------------------------|---------|---------------------------------|
| y u     | year                   | h K k   | hour 1-12, 0-11, 1-24           |
| M L     | month, number or name  | a       | AM or PM                        |
| d D     | day of month, of year  | m s S   | minute, second, fraction        |
| E       | weekday name           | A N     | milliseconds, nanoseconds of day|
| Q q     | quarter                | X x Z z O V | the zone, which is UTC      |
| H       | hour 0-23              | 'text'  | literal; '' is one quote        |

Week-based letters (Y w W e c F) are refused: what they mean depends on a locale, and `YYYY` in
place of `yyyy` is wrong around New Year.

Source: java.time.format.DateTimeFormatterBuilder.appendPattern documentation; Amazon Data
Firehose, "custom prefixes for Amazon S3 objects".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

MAX_PREFIX_CHARS = 1024  # Firehose: prefix as written
MAX_EVALUATED_CHARS = 512  # Firehose: prefix as evaluated

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_QUARTERS = ("1st", "2nd", "3rd", "4th")
_EXPRESSION = re.compile(r"!\{([^{}]*)\}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Render = Callable[[datetime], str]


class PrefixTemplate:
    """The `partition_by` list, ready to be evaluated. Raises ValueError with what is wrong."""

    def __init__(self, levels: Sequence[str]) -> None:
        text = "/".join(levels)
        if len(text) > MAX_PREFIX_CHARS:
            raise ValueError(f"partition_by has {len(text)} characters; at most {MAX_PREFIX_CHARS}")
        self._parts: list[Render] = []
        for level in levels:
            if not level.strip("/"):
                raise ValueError("partition_by has an empty level; leave it out")
            if self._parts:
                self._parts.append(_literal("/"))
            self._parts.extend(_compile(level.strip("/")))
        self.evaluate(0)

    def evaluate(self, at_ms: int) -> str:
        """The path for an instant (Unix ms), `/` at its end; empty for no levels at all.

        Raises:
            ValueError: the path would leave the target, or is longer than Firehose allows.
        """
        moment = _EPOCH + timedelta(milliseconds=at_ms)
        path = "".join(part(moment) for part in self._parts)
        if not path:
            return ""
        if len(path) > MAX_EVALUATED_CHARS:
            raise ValueError(f"the evaluated path has more than {MAX_EVALUATED_CHARS} characters")
        names = path.split("/")
        if any(name in ("", ".", "..") for name in names):
            raise ValueError(f"the path {path!r} has an empty level or one that is . or ..")
        if names[0] == "_sink":
            raise ValueError("_sink/ is where the plan log lives; choose another first level")
        return path + "/"


def _literal(text: str) -> Render:
    return lambda _: text


def _compile(level: str) -> list[Render]:
    parts: list[Render] = []
    position = 0
    for found in _EXPRESSION.finditer(level):
        parts.append(_plain(level[position : found.start()]))
        parts.extend(_expression(found[1]))
        position = found.end()
    parts.append(_plain(level[position:]))
    return parts


def _plain(text: str) -> Render:
    if "!{" in text:
        raise ValueError(f"{text!r}: an expression that is not closed; write !{{timestamp:...}}")
    if any(not c.isprintable() or c in '\\*?"<>|' for c in text):
        raise ValueError(f"{text!r} has a character that is not safe in a path")
    return _literal(text)


def _expression(text: str) -> list[Render]:
    namespace, separator, value = text.partition(":")
    if separator and namespace == "timestamp":
        return compile_pattern(value)
    if text == "firehose:random-string":
        raise ValueError(
            "!{firehose:random-string} would name a file anew with every attempt; leave it out, "
            "names are unique without it"
        )
    raise ValueError(
        f"!{{{text}}} is not known here; supported is !{{timestamp:pattern}}, for example "
        "!{timestamp:yyyy/MM/dd/HH}"
    )


def compile_pattern(pattern: str) -> list[Render]:
    """A DateTimeFormatter pattern -> what renders it. Raises ValueError naming the letter."""
    parts: list[Render] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "'":
            end = position + 1
            quoted = ""
            while True:
                close = pattern.find("'", end)
                if close < 0:
                    raise ValueError(f"{pattern!r}: a quote is not closed")
                quoted += pattern[end:close]
                if pattern[close + 1 : close + 2] == "'":  # '' inside quotes is one quote
                    quoted += "'"
                    end = close + 2
                    continue
                break
            parts.append(_plain(quoted or "'"))
            position = close + 1
        elif char.isascii() and char.isalpha():
            count = 1
            while pattern[position + count : position + count + 1] == char:
                count += 1
            parts.append(_field(char, count))
            position += count
        elif char in "[]{}#":
            raise ValueError(
                f"{pattern!r}: {char!r} is reserved in a pattern; quote it as '{char}'"
            )
        else:
            parts.append(_plain(char))
            position += 1
    return parts


def _field(letter: str, count: int) -> Render:
    if letter in "YwWecF":
        raise ValueError(
            f"pattern letter {letter!r} counts weeks, which depends on a locale; for the calendar "
            "year write yyyy, for the day of the month dd"
        )
    made = _FIELDS.get(letter)
    if made is None:
        raise ValueError(f"pattern letter {letter!r} is not one of {' '.join(sorted(_FIELDS))}")
    most, make = made
    if count > most:
        raise ValueError(f"too many pattern letters: {letter * count} (at most {most})")
    return make(count)


def _number(value: Callable[[datetime], int]) -> Callable[[int], Render]:
    return lambda count: lambda at: str(value(at)).zfill(count)


def _year(count: int) -> Render:
    if count == 2:
        return lambda at: f"{at.year % 100:02d}"
    return lambda at: str(at.year).zfill(count)


def _name(count: int, names: Sequence[str], index: Callable[[datetime], int]) -> Render:
    cut = {3: 3, 4: None, 5: 1}[count]
    return lambda at: names[index(at)][:cut]


def _month(count: int) -> Render:
    if count <= 2:
        return lambda at: str(at.month).zfill(count)
    return _name(count, _MONTHS, lambda at: at.month - 1)


def _weekday(count: int) -> Render:
    return _name(max(count, 3), _DAYS, lambda at: at.weekday())


def _quarter(count: int) -> Render:
    def render(at: datetime) -> str:
        quarter = (at.month + 2) // 3
        if count <= 2:
            return str(quarter).zfill(count)
        if count == 4:
            return f"{_QUARTERS[quarter - 1]} quarter"
        return f"Q{quarter}" if count == 3 else str(quarter)

    return render


def _fraction(count: int) -> Render:
    return lambda at: f"{at.microsecond * 1000:09d}"[:count]


def _day_ms(at: datetime) -> int:
    return ((at.hour * 60 + at.minute) * 60 + at.second) * 1000 + at.microsecond // 1000


def _zone(texts: Sequence[str]) -> Callable[[int], Render]:
    return lambda count: _literal(texts[count - 1])


def _zone_id(count: int) -> Render:
    if count != 2:
        raise ValueError("the zone's name is VV, two letters")
    return _literal("UTC")


def _offset_name(count: int) -> Render:
    if count not in (1, 4):
        raise ValueError("the zone's offset is O or OOOO")
    return _literal("GMT")


_FIELDS: dict[str, tuple[int, Callable[[int], Render]]] = {
    "y": (9, _year),
    "u": (9, _year),
    "M": (5, _month),
    "L": (5, _month),
    "d": (2, _number(lambda at: at.day)),
    "D": (3, _number(lambda at: at.timetuple().tm_yday)),
    "E": (5, _weekday),
    "Q": (5, _quarter),
    "q": (5, _quarter),
    "H": (2, _number(lambda at: at.hour)),
    "h": (2, _number(lambda at: (at.hour + 11) % 12 + 1)),
    "K": (2, _number(lambda at: at.hour % 12)),
    "k": (2, _number(lambda at: at.hour or 24)),
    "a": (1, lambda _: lambda at: "AM" if at.hour < 12 else "PM"),
    "m": (2, _number(lambda at: at.minute)),
    "s": (2, _number(lambda at: at.second)),
    "S": (9, _fraction),
    "A": (19, _number(_day_ms)),
    "N": (19, _number(lambda at: _day_ms(at) * 1_000_000)),
    "n": (19, _number(lambda at: at.microsecond * 1000)),
    "X": (5, _zone(["Z"] * 5)),
    "x": (5, _zone(["+00", "+0000", "+00:00", "+0000", "+00:00"])),
    "Z": (5, _zone(["+0000", "+0000", "+0000", "GMT", "Z"])),
    "z": (4, _zone(["UTC", "UTC", "UTC", "Coordinated Universal Time"])),
    "O": (4, _offset_name),
    "V": (2, _zone_id),
}
