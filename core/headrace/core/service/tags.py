"""Tags of streams, and of consumers: the operations by stream name and those by resource ARN."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.core.control.settings import DropTags, SetTags, too_many_tags
from headrace.core.errors import InvalidArgument
from headrace.core.limits import MAX_TAGS
from headrace.core.service.addressing import Resource, address, find_resource, require_active
from headrace.core.service.caller import Caller
from headrace.core.service.catalog import Catalog

_PUNCTUATION = frozenset(" _./=+-@:%")  # the percent sign is told apart below, as AWS does
_LETTERS_MARKS_NUMBERS_SPACES = frozenset("LMNZ")


class TagService:
    """Key-value pairs on streams and consumers, 50 at most."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def add_tags_to_stream(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._set(self._stream(caller, request), request["Tags"])

    async def remove_tags_from_stream(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        return await self._drop(self._stream(caller, request), request["TagKeys"])

    async def list_tags_for_stream(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        tags = self._stream(caller, request).stream.tags
        start = request.get("ExclusiveStartTagKey")
        keys = sorted(key for key in tags if start is None or key > start)
        page = keys[: request.get("Limit", MAX_TAGS)]
        return {
            "Tags": [{"Key": key, "Value": tags[key]} for key in page],
            "HasMoreTags": len(keys) > len(page),
        }

    async def tag_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._set(self._resource(caller, request), request["Tags"])

    async def untag_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return await self._drop(self._resource(caller, request), request["TagKeys"])

    async def list_tags_for_resource(
        self, caller: Caller, request: dict[str, Any]
    ) -> dict[str, Any]:
        stream, consumer = self._resource(caller, request)
        tags = stream.tags if consumer is None else consumer.tags
        return {"Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}

    def _stream(self, caller: Caller, request: dict[str, Any]) -> Resource:
        stream = self._catalog.find(caller, request.get("StreamName"), request.get("StreamARN"))
        return Resource(stream, None)

    def _resource(self, caller: Caller, request: dict[str, Any]) -> Resource:
        return find_resource(self._catalog, caller, request["ResourceARN"])

    async def _set(self, resource: Resource, tags: dict[str, str]) -> dict[str, Any]:
        stream = resource.stream
        check_tags(tags, stream.account, stream.name)
        _require_tagging(resource)
        await self._catalog.engine.control.submit(
            SetTags(**address(stream), tags=tags, consumer=resource.consumer_name)
        )
        return {}

    async def _drop(self, resource: Resource, keys: list[str]) -> dict[str, Any]:
        stream = resource.stream
        _check_characters(
            keys, f"remove tags from stream {stream.name} under account {stream.account}"
        )
        _require_tagging(resource)
        await self._catalog.engine.control.submit(
            DropTags(**address(stream), keys=keys, consumer=resource.consumer_name)
        )
        return {}


def check_tags(tags: Mapping[str, str], account: str, name: str) -> None:
    """Raises InvalidArgument for tags that cannot be given to a stream, whatever it has."""
    _check_characters([*tags, *tags.values()], f"add tags to stream {name} under account {account}")
    if len(tags) > MAX_TAGS:
        raise too_many_tags(account, name)


def _require_tagging(resource: Resource) -> None:
    """A consumer's tags can be changed in any state, a stream's not while it comes or goes."""
    require_active(Resource(resource.stream, None))


def _check_characters(texts: Sequence[str], action: str) -> None:
    """`action` is such as `add tags to stream S under account A`."""
    for text in texts:
        for character in text:
            if character in _PUNCTUATION:
                continue
            if unicodedata.category(character)[0] not in _LETTERS_MARKS_NUMBERS_SPACES:
                raise InvalidArgument(
                    "Some tags contain invalid characters. Valid characters: Unicode letters, "
                    "digits, white space, _ . / = + - % @."
                )
    if any("%" in text for text in texts):
        raise InvalidArgument(
            f"Failed to {action} because some tags contained illegal characters. "
            "The allowed characters are Unicode letters, white-spaces, "
            "'_',',','/','=','+','-','@'."
        )
