"""Base64 of many records at once against the standard library's, one at a time."""

from __future__ import annotations

import base64
import binascii

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core.model.blobs import decoded_sizes

ENCODED = st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode())
ODD = st.text(alphabet="AQgwBZ+/=-_ \n\\\xe9", max_size=9)


def size_if_canonical(text: str) -> int | None:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return len(data) if base64.b64encode(data).decode() == text else None


@given(st.lists(st.one_of(ENCODED, ENCODED, ENCODED, ODD), min_size=1, max_size=8))
@example(["QQ==", "QR=="])  # bits after the data
@example(["QUE=", "QUF="])
@example(["", "QQ=="])
@example(["Q=Q="])
@example(["===="])
@example(["QQ==QQ=="])
def test_a_batch_is_taken_as_its_records_one_by_one(texts: list[str]) -> None:
    sizes = [size_if_canonical(text) for text in texts]
    assert decoded_sizes(texts) == (None if None in sizes else sizes)
