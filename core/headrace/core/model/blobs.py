"""Base64 text of many records at once: is it valid, and how many bytes does it hold?"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import pybase64


def decoded_size(text: str) -> int:
    """Bytes that valid base64 `text` holds."""
    return len(text) * 3 // 4 - (text.endswith("=") + text.endswith("=="))


def total_decoded_size(texts: Sequence[str]) -> int | None:
    """Bytes that all texts hold together; None if any of them is not base64 as AWS takes it.

    One decoding of the joined texts checks every character; what is left to check per text is
    its length, that `=` stands nowhere but at its end, and that no bits are set after the data
    (some readers' decoders refuse those, and would stay behind on such a record for ever).
    """
    total = 0
    for text in texts:
        if len(text) & 3:
            return None
        total += len(text)
    joined = "".join(texts)
    padding = joined.count("=")
    if padding:
        at_ends = 0
        for text in texts:
            if text.endswith("=="):
                at_ends += 2
                if text[-3] not in _LAST_BEFORE_TWO:
                    return None
            elif text.endswith("="):
                at_ends += 1
                if text[-2] not in _LAST_BEFORE_ONE:
                    return None
        if at_ends != padding:
            return None
        joined = joined.replace("=", "A")
    try:
        pybase64.b64decode_as_bytearray(joined, validate=True)
    except (binascii.Error, ValueError):
        return None
    return total // 4 * 3 - padding


_LAST_BEFORE_ONE = frozenset("AEIMQUYcgkosw048")  # the two low bits are zero
_LAST_BEFORE_TWO = frozenset("AQgw")  # the four low bits are zero
