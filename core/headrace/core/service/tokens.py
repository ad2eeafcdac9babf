"""NextTokens: where a listing goes on, and since when the token is good. They last five minutes."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import pybase64

from headrace.core.errors import ExpiredNextToken, InvalidArgument
from headrace.core.limits import LIST_TOKEN_LIFETIME_MS

T = TypeVar("T")


def issue_token(place: object, now_ms: int) -> str:
    """A token for `place`, which is anything JSON has."""
    return pybase64.b64encode_as_string(msgspec.json.encode((place, now_ms)))


def read_token(token: str, place_type: type[T], now_ms: int) -> T:
    """The place a token is for.

    Raises:
        InvalidArgument: it is no token, or one for places of another kind.
        ExpiredNextToken: it is older than five minutes.
    """
    place: T
    try:
        body = pybase64.b64decode(token, validate=True)
        place, issued_ms = msgspec.json.decode(body, type=tuple[place_type, int])  # type: ignore[valid-type]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidArgument("Invalid NextToken.") from None
    age_ms = now_ms - issued_ms
    if age_ms > LIST_TOKEN_LIFETIME_MS:
        raise ExpiredNextToken(
            f"NextToken expired. It was issued {age_ms} milliseconds ago, more than the "
            f"tolerated {LIST_TOKEN_LIFETIME_MS}."
        )
    return place


def of_another_stream() -> InvalidArgument:
    """For a token that was issued for a stream of the same name, or of another account."""
    return InvalidArgument("Invalid NextToken. It was issued for another stream.")
