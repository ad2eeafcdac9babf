"""Base64 text of many records at once: is it valid, and how many bytes does it hold?"""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import pybase64


def decoded_size(text: str) -> int:
    """Bytes that valid base64 `text` holds."""
    return len(text) * 3 // 4 - (text.endswith("=") + text.endswith("=="))


def total_decoded_size(texts: Sequence[str]) -> int | None:
    """Bytes that all texts hold together; None if any of them is not valid base64.

    One decoding of the joined texts checks every character; what is left to check per text is
    its length and that `=` stands nowhere but at its end.
    """
    total = 0
    for text in texts:
        if len(text) & 3:
            return None
        total += len(text)
    joined = "".join(texts)
    padding = joined.count("=")
    if padding:
        ones = sum([text.endswith("=") for text in texts])
        if padding != ones + sum([text.endswith("==") for text in texts]):
            return None
        joined = joined.replace("=", "A")
    try:
        pybase64.b64decode_as_bytearray(joined, validate=True)
    except (binascii.Error, ValueError):
        return None
    return total // 4 * 3 - padding
