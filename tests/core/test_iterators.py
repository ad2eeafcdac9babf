"""Shard iterators: what a token says, whether or not it is remembered."""

from __future__ import annotations

import pytest

from headrace.core.errors import ExpiredIterator, InvalidArgument
from headrace.core.limits import ITERATOR_LIFETIME_MS
from headrace.core.model.sequence import Position
from headrace.core.service.iterators import MAX_REMEMBERED, IteratorCodec

UID = "0123456789abcdef"
NOW_MS = 1_790_000_000_000


def test_what_is_remembered_of_tokens_is_bounded_and_the_others_can_be_read_as_well() -> None:
    codec = IteratorCodec(b"secret")
    tokens = [
        codec.issue(UID, n, Position(n, 7), NOW_MS + n) for n in range(2 * MAX_REMEMBERED + 5)
    ]
    assert len(set(tokens)) == len(tokens)
    assert 0 < len(codec._issued) <= MAX_REMEMBERED
    assert tokens[0] not in codec._issued and tokens[-1] in codec._issued
    for n, token in enumerate(tokens):
        found = codec.read(token, NOW_MS + n)
        assert (found.uid, found.shard, found.position) == (UID, n, Position(n, 7))
        assert found == IteratorCodec(b"secret").read(token, NOW_MS + n)


def test_a_token_that_is_remembered_expires_too() -> None:
    codec = IteratorCodec(b"secret")
    token = codec.issue(UID, 1, Position(1, 0), NOW_MS)
    codec.read(token, NOW_MS + ITERATOR_LIFETIME_MS)
    with pytest.raises(ExpiredIterator):
        codec.read(token, NOW_MS + ITERATOR_LIFETIME_MS + 1)
    with pytest.raises(InvalidArgument):
        IteratorCodec(b"another").read(token, NOW_MS)
