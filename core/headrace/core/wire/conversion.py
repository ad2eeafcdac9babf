"""Scalars off the wire -> Python values, refused in AWS's words when of the wrong JSON type.

Owns: what each scalar kind of the model accepts in JSON 1.1 and CBOR 1.1, and AWS's texts for what
it does not (the texts are those asserted against AWS by the kinesalite project's tests).
CBOR carries blobs as byte strings and timestamps as `EpochMs`, which JSON never produces, so one
function per kind serves both encodings.

AWS's texts for what only CBOR can carry (a byte string where text is expected, NaN) are unknown;
they are worded here after the others.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn

import pybase64

from headrace.core.errors import Serialization

MAX_SHOWN_CHARS = 4096
"""A value longer than this is not repeated in an error: an answer must not be as large as the
request it refuses. (AWS's own bound is unknown; it prints 2,048 characters and more.)"""

_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"
_BOOLEANS = {"TRUE": True, "YES": True, "1": True, "FALSE": False, "NO": False, "0": False}
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]|=(?=[^=])")


class EpochMs(int):
    """A CBOR timestamp (tag 1), already in Unix milliseconds."""


def to_string(value: object) -> str:
    if type(value) is str:
        return value
    _refuse(value, "can not be converted to an String")


def to_integer(value: object) -> int:
    """Fractions are cut off and what does not fit 32 bits saturates, as on AWS."""
    return _to_int(value, "Integer", _INT32_MAX)


def to_long(value: object) -> int:
    return _to_int(value, "Long", _INT64_MAX)


def _to_int(value: object, kind: str, largest: int) -> int:
    if type(value) is float and math.isfinite(value):
        value = int(value)
    if type(value) is int:
        return min(max(value, -largest - 1), largest)
    _refuse(value, f"can not be converted to an {kind}")


def to_boolean(value: object) -> bool:
    """Besides true and false, AWS takes their usual spellings as text, and numbers with a point."""
    if type(value) is bool:
        return value
    if type(value) is str:
        spelled = value.upper()
        if spelled in _BOOLEANS:
            return _BOOLEANS[spelled]
        raise Serialization(f"{_quoted(spelled)} can not be converted to an Boolean")
    if type(value) is float and math.isfinite(value):
        return value != 0
    _refuse(value, "can not be converted to an Boolean")


def to_blob(value: object) -> bytes:
    """Base64 text with its padding (JSON), or a byte string (CBOR)."""
    if type(value) is bytes:
        return value
    if type(value) is not str:
        _refuse(value, "can not be converted to a Blob")
    try:
        data = pybase64.b64decode(value, validate=True)
    except ValueError:
        _refuse_base64(value)
    # The decoder forgives set bits after the end of the data; AWS does not.
    if value.endswith("=") and not value.endswith(_last_quantum(data)):
        raise _no_blob(value, "Invalid last non-pad Base64 character dectected")  # AWS's spelling
    return data


def _last_quantum(data: bytes) -> str:
    return pybase64.b64encode(data[len(data) - len(data) % 3 :]).decode()


def to_timestamp(value: object) -> int:
    """Unix milliseconds from epoch seconds (a JSON number) or from a CBOR timestamp."""
    if type(value) is EpochMs:
        return int(value)
    if type(value) is int:
        return _bounded_ms(value * 1000)
    if type(value) is float and math.isfinite(value):
        return _bounded_ms(round(min(max(value, -1e17), 1e17) * 1000))
    _refuse(value, "can not be converted to milliseconds since epoch")


def epoch_ms(value: object) -> EpochMs:
    """What a CBOR tag 1 holds -> milliseconds.

    The Java SDKs write integer milliseconds where the CBOR standard says seconds. What would be
    later than the year 5138 in seconds is taken as milliseconds; those were before 1973-03-03.

    Raises:
        ValueError: not a finite number.
    """
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError("a timestamp is a finite number")
    number: int | float = value  # type: ignore[assignment]
    return EpochMs(_bounded_ms(round(number if abs(number) >= 1e11 else number * 1000)))


def _bounded_ms(value: int) -> int:
    return min(max(value, -_INT64_MAX - 1), _INT64_MAX)


def _refuse(value: object, what: str) -> NoReturn:
    """Raise Serialization for a value of a type the model does not have in this place."""
    if isinstance(value, bool):
        raise Serialization(f"class java.lang.Boolean {what}")
    if isinstance(value, int | float):
        raise Serialization(f"{_NUMBER} {what}")
    if isinstance(value, str):
        raise Serialization(f"class java.lang.String {what}")
    if isinstance(value, bytes):
        raise Serialization(f"class java.nio.HeapByteBuffer {what}")
    if isinstance(value, list):
        raise Serialization("Start of list found where not expected")
    if isinstance(value, dict):
        raise Serialization("Start of structure or map found where not expected.")
    raise Serialization(f"value {what}")


def _refuse_base64(text: str) -> NoReturn:
    if len(text) % 4:
        raise _no_blob(
            text,
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {len(text)}",
        )
    wrong = _NOT_BASE64.search(text)
    raise _no_blob(text, f"Invalid Base64 character: '{wrong[0][0] if wrong else '='}'")


def _no_blob(text: str, reason: str) -> Serialization:
    return Serialization(f"{_quoted(text)} can not be converted to a Blob: {reason}")


def _quoted(text: str) -> str:
    return f"'{text}'" if len(text) <= MAX_SHOWN_CHARS else f"'{text[:MAX_SHOWN_CHARS]}…'"
