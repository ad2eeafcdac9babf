"""The data path, from a request's headers and body to the reply's: who asks, for what, the answer.

Knows HTTP's names, and nothing of how they come and go: that is `app`'s, and the listener's.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from headrace.core.errors import (
    AccessDenied,
    HeadraceError,
    InternalFailure,
    ServiceError,
    UnknownOperation,
)
from headrace.core.later import Later
from headrace.core.pieces import Pieces
from headrace.core.service.caller import Caller
from headrace.core.wire import codec
from headrace.core.wire.answer import Answer
from headrace.core.wire.codec import Headers
from headrace.core.wire.cors import Cors
from headrace.core.wire.dispatch import PRODUCER, Dispatcher, is_answered_whole

Header = tuple[bytes, bytes]
Reply = tuple[int, Headers, bytes | Pieces | AsyncGenerator[bytes, None]]
"""Status, headers, body."""
PlainReply = Reply | tuple[int, bytes, bytes]
"""As `Reply`, or with the lines of the headers as they are sent."""

_JSON = codec.JSON.encode()
_WHOLE = (bytes, Pieces)  # of a known length
_PLAIN_JSON = "application/json"  # what some clients say for codec.JSON
_LINES = (
    b"x-amzn-requestid: %b\r\nx-amz-id-2: %b\r\ncontent-type: "
    + _JSON
    + b"\r\ncontent-length: %d\r\n"
)
# x-amz-id-2 decodes to 64..80 bytes at AWS; it names the host, so one per process will do
EXTENDED_ID = base64.b64encode(os.urandom(72))


class Authenticator(Protocol):
    """What the application needs of `wire.auth`."""

    def authenticate(
        self,
        method: str,
        path: bytes,
        query: bytes,
        headers: Sequence[Header],
        body: bytes,
    ) -> Caller: ...


class DataPath:
    """The Kinesis API and its extension, of one catalog."""

    def __init__(self, dispatcher: Dispatcher, authenticator: Authenticator, cors: Cors) -> None:
        self._dispatcher = dispatcher
        self._authenticator = authenticator
        self._cors = cors
        unique = os.urandom(8).hex()
        self._request_prefix = f"{unique[:8]}-{unique[8:12]}-4{unique[13:16]}-8000".encode()
        self._request_count = itertools.count()

    def answer_whole(
        self, pairs: Sequence[Header], body: bytes
    ) -> PlainReply | Later[PlainReply] | Coroutine[Any, Any, Reply] | None:
        """The reply to a `POST /` that has been received; None if it is one that goes on.

        `pairs` are its headers, names in lower case. The reply is status, headers and body. See
        `listener.http1`.
        """
        headers = dict(pairs)
        target = headers.get(b"x-amz-target", b"")
        if (
            target in self._dispatcher.begun
            and headers.get(b"content-type") == _JSON
            and b"origin" not in headers
            and PRODUCER not in headers
        ):
            try:
                caller = self._authenticator.authenticate("POST", b"/", b"", pairs, body)
            except HeadraceError as error:
                return self.reply(b"/", b"", pairs, headers, body, error)
            begun = self._begin(caller, target, body)
            return begun or self.reply(b"/", b"", pairs, headers, body, caller)
        if not is_answered_whole(target):
            return None
        return self.reply(b"/", b"", pairs, headers, body)

    def _begin(
        self, caller: Caller, target: bytes, body: bytes
    ) -> PlainReply | Later[PlainReply] | None:
        """What is asked most, begun; None for all else and what is wrong: `reply` answers that."""
        begun = self._dispatcher.begin(caller, target, body)
        if begun is None:
            return None
        if isinstance(begun, Answer):
            return self._told_directly(begun)
        return Later(begun.done, lambda: self._told_directly(begun.tell()))

    def _told_directly(self, answer: Answer) -> PlainReply:
        """As `_told` of an answer in JSON, which has no other headers where it is a good one."""
        status, _, out = answer
        if status != 200 or not isinstance(out, bytes):
            return self._told(answer, _JSON)
        return status, _LINES % (self.request_id(), EXTENDED_ID, len(out)), out

    async def reply(
        self,
        path: bytes,
        query: bytes,
        pairs: Sequence[Header],
        headers: dict[bytes, bytes],
        body: bytes | ServiceError,
        known: Caller | HeadraceError | None = None,
    ) -> Reply:
        """To a request of the data path, its body read (or refused); `headers` are the `pairs`.

        `known` is what has come of authenticating it, if that has been done.
        """
        origin = headers.get(b"origin")
        cors = () if origin is None else self._cors.headers(origin)
        if cors is None:
            return self.refused(self._cors.refusal(origin or b""))
        content_type = codec.media_type(headers.get(b"content-type", b"").decode("latin-1"))
        # an error of another kind of request is told in XML
        encoding = codec.JSON if content_type == _PLAIN_JSON else content_type
        if not body and encoding != codec.JSON:
            encoding = codec.CBOR  # as AWS answers where there is nothing to tell it by
        try:
            if isinstance(body, ServiceError):
                encoding = codec.CBOR if content_type == codec.CBOR else codec.JSON
                raise body
            target = headers.get(b"x-amz-target", b"").decode("latin-1")
            if isinstance(known, HeadraceError):
                raise known
            caller = known or self._admit(path, query, pairs, encoding, target, body)
        except HeadraceError as error:
            refused = error if isinstance(error, ServiceError) else InternalFailure(str(error))
            answer = Answer(*codec.encode_error(refused, encoding))
        else:
            answer = await self._dispatcher.dispatch(caller, target, encoding, headers, body)
        return self._told(answer, content_type.encode(), cors)

    def _told(self, answer: Answer, content_type: bytes, cors: Iterable[Header] = ()) -> Reply:
        """An answer with the headers that all have."""
        status, extra, out = answer
        headers = [
            *extra,
            (b"x-amzn-requestid", self.request_id()),
            (b"x-amz-id-2", EXTENDED_ID),
            *cors,
        ]
        if status == 200 and isinstance(out, _WHOLE):
            headers.append((b"content-type", content_type))
            headers.append((b"content-length", b"%d" % len(out)))
        return status, headers, out

    def _admit(
        self,
        path: bytes,
        query: bytes,
        pairs: Sequence[Header],
        encoding: str,
        target: str,
        body: bytes,
    ) -> Caller:
        """Who asks. Content type, target, authentication.

        AWS looks at the body before the signature; here nothing is parsed for a stranger. Raises
        HeadraceError as AWS does.
        """
        if encoding != codec.JSON and encoding != codec.CBOR:
            raise AccessDenied("Unable to determine service/operation name to be authorized")
        if not target:
            raise UnknownOperation("")
        return self._authenticator.authenticate("POST", path, query, pairs, body)

    def refused(self, refusal: str) -> tuple[int, Headers, bytes]:
        """The reply to a browser whose page is not to use this server."""
        status, headers, body = codec.encode_error(AccessDenied(refusal), "")
        return status, [*headers, (b"x-amzn-requestid", self.request_id())], body

    def request_id(self) -> bytes:
        """A UUID's form: a prefix of this process, then a count."""
        return b"%b-%012x" % (self._request_prefix, next(self._request_count))
