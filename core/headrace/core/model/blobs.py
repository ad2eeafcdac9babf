"""Base64 text of many records at once: is it valid, and how many bytes does it hold?"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from operator import itemgetter

import pybase64

from headrace.core.speedups import compiled


def decoded_size(text: str) -> int:
    """Bytes that valid base64 `text` holds."""
    return len(text) * 3 // 4 - (text.endswith("=") + text.endswith("=="))


@compiled
def decoded_sizes(texts: Sequence[str], /) -> list[int] | None:
    """Bytes that each text holds; None if any of them is not base64 as AWS takes it.

    Refused too are bits set after the data: some readers' decoders refuse those, and would stay
    behind on such a record for ever. (Decoding each text beats decoding all joined: the copies
    do not stay in the cache. Measured 500 x 1 KiB: 0.3 ms against 1.0 ms.)
    """
    try:
        # by position: keywords would double what the call costs
        sizes = [len(_decode(text, None, True)) for text in texts]
    except (binascii.Error, ValueError):
        return None
    # a set: of the ends with "==", where the search has most to look at, few differ
    if _BITS_AFTER_DATA.search("\n".join(set(map(_END, texts)))):
        return None
    return sizes


_decode = pybase64.b64decode
_END = itemgetter(slice(-3, None))
# Before "==" the four low bits of a character are zero, before "=" the two low bits.
# (Beginning with a literal, the search skips from one "=" to the next.)
_BITS_AFTER_DATA = re.compile(
    "=(?:(?<=[^AQgw\n]=)=|(?<=[^AEIMQUYcgkosw048=\n]=)(?!=))",
)
