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

    Works on all of them at once: one decoding of the joined texts checks every character, and
    counting in the texts joined by lines checks that `=` stands nowhere but at an end.
    """
    if any(length & 3 for length in set(map(len, texts))):
        return None
    joined = "".join(texts)
    padding = joined.count("=")
    if padding:
        lines = "\n".join(texts) + "\n"
        if padding != lines.count("=\n") + lines.count("==\n"):
            return None
        characters = joined.replace("=", "A")
    else:
        characters = joined
    try:
        pybase64.b64decode_as_bytearray(characters, validate=True)
    except (binascii.Error, ValueError):
        return None
    return len(joined) // 4 * 3 - padding
