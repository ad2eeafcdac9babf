"""From a target and a body to an answer: which operation, its checks in order, its encoding."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from headrace.core.errors import (
    CorruptSegment,
    HeadraceError,
    InternalFailure,
    ServiceError,
    ServiceUnavailable,
    StorageFull,
    UnknownOperation,
    ValidationError,
)
from headrace.core.later import Later
from headrace.core.model.records import (
    PRODUCER_EPOCH_HEADER,
    PRODUCER_HEADER,
    PRODUCER_SEQUENCES_HEADER,
    decode_sequences,
)
from headrace.core.service.call_rates import CallRates
from headrace.core.service.caller import Caller
from headrace.core.service.capacity import Capacity
from headrace.core.service.catalog import Catalog
from headrace.core.service.operations import operations
from headrace.core.service.put_columns import Stamp
from headrace.core.service.puts import PutBegun, PutService
from headrace.core.service.reads import GetAnswer, ReadService
from headrace.core.service.streams import StreamService
from headrace.core.service.subscriptions import SubscriptionService
from headrace.core.service.usage import Usage
from headrace.core.service.usage_report import UsageService
from headrace.core.wire import codec, event_stream, hot_answers, hot_requests, validation
from headrace.core.wire.answer import Answer
from headrace.core.wire.extension import Extension

log = logging.getLogger("headrace.core")

KINESIS_TARGET = "Kinesis_20131202."
EXTENSION_TARGET = "Headrace_20261122."
RECORDS_EXPIRED_HEADER = (b"x-headrace-records-expired", b"true")

PRODUCER = PRODUCER_HEADER.encode()
_EPOCH = PRODUCER_EPOCH_HEADER.encode()
_SEQUENCES = PRODUCER_SEQUENCES_HEADER.encode()
_WHOLE_PREFIX = KINESIS_TARGET.encode()
_SUBSCRIBE = _WHOLE_PREFIX + b"SubscribeToShard"
_GET_RECORDS = _WHOLE_PREFIX + b"GetRecords"
_BEGUN = frozenset((_GET_RECORDS, _WHOLE_PREFIX + b"PutRecord"))


def is_answered_whole(target: bytes) -> bool:
    """Whether the answer is never one that comes bit by bit: a subscription's, a long report."""
    return target.startswith(_WHOLE_PREFIX) and target != _SUBSCRIBE


class Dispatcher:
    """All operations of one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        streams: StreamService,
        usage: Usage,
        metered: UsageService,
        capacity: Capacity | None = None,
        rates: CallRates | None = None,
    ) -> None:
        """Without `capacity` and `rates` the hardware is the limit."""
        self._rates = rates
        is_limited = capacity is not None
        self.begun = frozenset[bytes]() if is_limited else _BEGUN
        """The targets that `begin` knows."""
        self._puts = PutService(catalog, usage, capacity)
        self._reads = reads = ReadService(catalog, usage, capacity)
        self._subscriptions = SubscriptionService(catalog, reads, usage, is_limited=is_limited)
        self._extension = Extension(catalog, metered)
        self._cold = operations(catalog, streams, reads, is_limited=is_limited)
        self._hot = {
            KINESIS_TARGET + "PutRecords": self._put_records,
            KINESIS_TARGET + "PutRecord": self._put_record,
            KINESIS_TARGET + "GetRecords": self._get_records,
            KINESIS_TARGET + "SubscribeToShard": self._subscribe_to_shard,
        }

    def close(self) -> None:
        """End what would go on for minutes: the server stops."""
        self._subscriptions.close()

    @property
    def operations(self) -> frozenset[str]:
        """The Kinesis operations that are answered."""
        hot = (target.removeprefix(KINESIS_TARGET) for target in self._hot)
        return frozenset(self._cold) | frozenset(hot)

    async def dispatch(
        self,
        caller: Caller,
        target: str,
        content_type: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
    ) -> Answer:
        """Answer one authenticated request. Never raises: an error is an answer too.

        `content_type` is codec.JSON or codec.CBOR; `headers` have lower-case names.
        """
        try:
            run_hot = self._hot.get(target)
            if run_hot is not None:
                return await run_hot(caller, content_type, headers, body)
            if target.startswith(KINESIS_TARGET):
                name = target[len(KINESIS_TARGET) :]
                run_cold = self._cold.get(name)
                if run_cold is None:
                    raise UnknownOperation("")
                request = _validate(name, codec.decode(body, content_type))
                if self._rates is not None:
                    self._rates.admit(name, caller, request)
                answer = await run_cold(caller, request)
                return Answer(200, [], codec.encode_response(name, answer, content_type))
            if target.startswith(EXTENSION_TARGET) and content_type == codec.JSON:
                return await self._extension.answer(caller, target[len(EXTENSION_TARGET) :], body)
            raise UnknownOperation("")
        except HeadraceError as error:
            return Answer(*codec.encode_error(_on_the_wire(error), content_type))
        except Exception:
            log.exception("an unexpected error while answering %s", target)
            return Answer(*codec.encode_error(InternalFailure("Internal failure."), content_type))

    def begin(self, caller: Caller, target: bytes, body: bytes) -> Answer | Later[Answer] | None:
        """Answer what is asked most as directly as can be: a poll at the tail, one record's put.

        For requests in JSON of a target in `begun`, without the headers of a producer. None where
        there is more to it, or something wrong, with nothing done: `dispatch` answers that.
        """
        try:
            return (
                self._poll(caller, body) if target == _GET_RECORDS else self._put_one(caller, body)
            )
        except HeadraceError:
            pass
        except Exception:
            log.exception("an unexpected error while answering %s", target.decode("latin-1"))
            return Answer(*codec.encode_error(InternalFailure("Internal failure."), codec.JSON))
        return None

    def _poll(self, caller: Caller, body: bytes) -> Answer | Later[Answer] | None:
        usual = hot_requests.decode_usual_poll(body)
        answer = None if usual is None else self._reads.get_now(caller, *usual)
        if answer is None:
            return None
        if isinstance(answer, Later):
            return Later(answer.done, lambda: _told_poll(answer.tell()))
        return _told_poll(answer)

    def _put_one(self, caller: Caller, body: bytes) -> Later[Answer] | None:
        usual = hot_requests.decode_usual_put(body)
        begun = None if usual is None else self._puts.put_one(caller, *usual)
        return None if begun is None else Later(begun.durable, lambda: self._tell_put(begun))

    def _tell_put(self, begun: PutBegun) -> Answer:
        error = begun.durable.exception()
        if isinstance(error, HeadraceError):
            return Answer(*codec.encode_error(_on_the_wire(error), codec.JSON))
        if error is not None:
            raise error
        self._puts.count_one(begun)
        stream = begun.stream
        encryption = None if stream.key_id is None else stream.encryption
        body = hot_answers.render_one_put(begun.sequence_number, begun.shard.id, encryption)
        return Answer(200, [], body)

    async def _put_records(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        request = hot_requests.decode_put_records(
            body,
            content_type == codec.JSON,
            lambda: _validate("PutRecords", codec.decode(body, content_type)),
        )
        stamp = _stamp(headers) if PRODUCER in headers else None
        answer = await self._puts.put(
            caller, request.name, request.arn, request.columns, stamp, is_dry=request.dry_run
        )
        return Answer(200, [], hot_answers.render_put_records(answer, content_type))

    async def _put_record(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        request = hot_requests.decode_put_record(
            body,
            content_type == codec.JSON,
            lambda: _validate("PutRecord", codec.decode(body, content_type)),
        )
        stamp = _stamp(headers) if PRODUCER in headers else None
        answer = await self._puts.put(
            caller,
            request.name,
            request.arn,
            request.columns,
            stamp,
            ordering=request.ordering,
            is_dry=request.dry_run,
        )
        return Answer(200, [], hot_answers.render_put_record(answer, content_type))

    async def _get_records(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        token, limit, is_dry = hot_requests.decode_get_records(
            body,
            content_type == codec.JSON,
            lambda: _validate("GetRecords", codec.decode(body, content_type)),
        )
        answer = await self._reads.get(caller, token, limit, is_dry=is_dry)
        extra = [RECORDS_EXPIRED_HEADER] if answer.slice.missed else []
        return Answer(200, extra, hot_answers.render_get_records(answer, content_type))

    async def _subscribe_to_shard(
        self, caller: Caller, content_type: str, headers: Mapping[bytes, bytes], body: bytes
    ) -> Answer:
        request = _validate("SubscribeToShard", codec.decode(body, content_type))
        events = await self._subscriptions.subscribe(caller, request)
        kind = (b"content-type", event_stream.MEDIA_TYPE.encode())
        return Answer(200, [kind], event_stream.encode_events(events, content_type))


def _told_poll(answer: GetAnswer) -> Answer:
    return Answer(200, [], hot_answers.render_poll(answer))


def _validate(name: str, request: object) -> dict[str, Any]:
    return validation.validate(name, request)


def _stamp(headers: Mapping[bytes, bytes]) -> Stamp:
    """The producer's headers. Raises ValidationError naming the header that is wrong."""
    producer_id = headers[PRODUCER].decode("latin-1")
    hot_requests.check_producer_id(producer_id)
    try:
        epoch = int(headers.get(_EPOCH, b"0"))
    except ValueError:
        epoch = -1
    if not 0 <= epoch < 2**63:
        raise ValidationError("The X-Headrace-Producer-Epoch header must be an integer >= 0.")
    try:
        sequences = decode_sequences(headers.get(_SEQUENCES, b"").decode("latin-1"))
    except ValueError as error:
        raise ValidationError(
            f"The X-Headrace-Producer-Sequences header must be first,+delta,+delta: {error}."
        ) from error
    return Stamp(producer_id, epoch, sequences)


def _on_the_wire(error: HeadraceError) -> ServiceError:
    """What a client is told. Storage trouble is ours to mend, so it is a 500 that names itself;
    a full disk passes, so it is a 503."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, StorageFull):
        return ServiceUnavailable(str(error))
    if isinstance(error, CorruptSegment):
        log.error("%s", error)
    return InternalFailure(str(error))
