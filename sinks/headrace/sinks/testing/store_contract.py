"""The contract of `ObjectStore` as a test, for every store there is and will be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.sinks.stores.protocol import ObjectStore


async def check_object_store(make: Callable[[], Awaitable[ObjectStore]]) -> None:
    """The contract of `ObjectStore`. `make` opens a handle on one and the same empty root."""
    store, other = await make(), await make()
    assert await store.get("a/x") is None
    assert await store.head("a/x") is None
    assert [key async for key in store.list_from("a/")] == []

    assert await store.put_if_absent("a/x", b"first", {"sha256": "1"})
    assert not await store.put_if_absent("a/x", b"second", {"sha256": "2"})
    assert not await other.put_if_absent("a/x", b"third", {})
    assert await other.get("a/x") == b"first"
    head = await store.head("a/x")
    assert head is not None and head.size_bytes == 5
    assert head.metadata.get("sha256", "1") == "1"
    assert await store.head("a") is None  # a folder is no object

    assert await store.put_if_absent("a/empty", b"", {})
    assert await store.get("a/empty") == b""

    raced = await asyncio.gather(
        *(
            handle.put_if_absent("a/raced", str(i).encode() * 1000, {})
            for i, handle in enumerate([store, other] * 8)
        )
    )
    assert raced.count(True) == 1
    assert await store.get("a/raced") == str(raced.index(True)).encode() * 1000

    names = ["a/y", "a/y.z", "a/y/1", "a/y/2", "a/z", "b/1", "a-b", "ä", "z"]
    for name in names:
        if name != "a/y":  # in a folder a name is a file or a folder
            assert await store.put_if_absent(name, b"-", {})
    inside = sorted(n for n in [*names[1:], "a/x", "a/empty", "a/raced"] if n.startswith("a/"))
    assert [key async for key in store.list_from("a/")] == inside
    for after in ["a/", *inside, "a/y/", "a/zz"]:
        found = [key async for key in store.list_from("a/", after)]
        assert found == [key for key in inside if key.encode() > after.encode()], after
    everything = [key async for key in store.list_from("")]
    assert everything == sorted(everything, key=str.encode) and len(everything) == 11

    await store.discard_partial("a/x")
    assert await store.get("a/x") == b"first"
    await store.delete("a/x")
    await store.delete("a/x")
    assert await store.get("a/x") is None
    assert await store.put_if_absent("a/x", b"again", {})
    await store.close()
    await other.close()
