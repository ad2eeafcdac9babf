"""A poll at the tail and one record's put: begun directly, answered and counted as by `reply`."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api_support import SIGNED
from begun_requests_support import GOOD, JSON, KMS, PLAIN, Client, put_one, serving, told
from client_support import until
from headrace.core.engine.embedded import group_commit
from headrace.core.engine.embedded.in_loop import InLoop
from headrace.core.errors import StorageFull
from headrace.core.later import Later
from headrace.core.limits import ITERATOR_LIFETIME_MS
from headrace.core.log.files import SystemFiles
from headrace.core.testing.faulty_files import FaultyFiles, no_space

LAST = 2**128 - 1
AUTO = {
    "StreamModeDetails": {"StreamMode": "ON_DEMAND"},
    "RecordDistributionStrategy": "AUTO",
}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(tmp_path, state_delay_ms=0) as found:
        yield found


PUTS: list[tuple[str, Any]] = [
    ("later", GOOD),
    ("later", GOOD | {"Data": ""}),
    ("later", GOOD | {"Data": "YWJj" * 3_000}),
    *(("later", GOOD | {"PartitionKey": key}) for key in ('a"b', "a\\", "\n", "\x7f", "k" * 256)),
    *(("later", GOOD | {"ExplicitHashKey": key}) for key in ("0", "1", str(LAST), None)),
    *(("whole", GOOD | {"ExplicitHashKey": key}) for key in (str(LAST + 1), "9" * 40, "01", "00")),
    *(("whole", GOOD | {"ExplicitHashKey": key}) for key in ("", "-1", "+1", " 1", "\uff11")),
    *(("whole", GOOD | {"PartitionKey": key}) for key in ("é", "\u2028", "k" * 257, "", None, 1)),
    *(("whole", GOOD | {"Data": data}) for data in ("YQ", "YR==", "Y Q=", "é", None, 5)),
    ("later", GOOD | {"Data": "YWJj" * (2**20 // 3)}),  # 1 MiB with its key
    ("whole", GOOD | {"Data": "YWJj" * (2**20 // 3 + 1)}),
    ("whole", {"Data": "YWJj"}),
    ("whole", {"PartitionKey": "k"}),
    ("whole", GOOD | {"StreamName": "there-is-none"}),
    ("whole", GOOD | {"StreamName": "no name!"}),
    ("whole", GOOD | {"StreamName": ""}),
    ("whole", GOOD | {"StreamName": None}),
    ("whole", GOOD | {"StreamARN": "arn:aws:kinesis:us-east-1:123456789012:stream/other"}),
    ("whole", GOOD | {"SequenceNumberForOrdering": "0"}),
    ("whole", GOOD | {"DryRun": True}),
    ("whole", GOOD | {"DryRun": False}),
    ("whole", GOOD | {"Unknown": 1}),
    ("whole", b"{"),
    ("whole", b""),
    ("whole", b"[]"),
    ("whole", b'{"Data":"YWJj","PartitionKey":"k\xff"}'),
]  # fmt: skip


@pytest.mark.parametrize("kind", [PLAIN, KMS])
async def test_puts(client: Client, kind: str) -> None:
    names = [f"{kind}-{way}" for way in ("begun", "whole")]
    for name in names:
        await client.create(name)
    client.counted()
    for way, case in PUTS:
        answers = []
        for name in names:
            request = case if isinstance(case, bytes) else {"StreamName": name, **case}
            begun = name.endswith("begun")
            went, answer = await client.ask("PutRecord", request, begun=begun)
            assert went == (way if begun else "whole"), case
            if "SequenceNumber" in answer["body"]:
                assert len(answer["body"].pop("SequenceNumber")) == 56
            answers.append(json.loads(json.dumps(answer).replace(name, "NAME")))
        assert answers[0] == answers[1], case
    counted = client.counted()
    assert counted[names[0]] == counted[names[1]]
    stored = [await everything(client, name) for name in names]
    assert stored[0] == stored[1]
    assert len(stored[0]) > 12


async def everything(client: Client, name: str) -> list[Any]:
    found = []
    for shard in range(3):
        token = await client.iterator(name, "TRIM_HORIZON", shard)
        answer = await client.good("GetRecords", {"ShardIterator": token})
        for record in answer["Records"]:
            record.pop("SequenceNumber")
            found.append((shard, record))
    return found


async def test_polls(client: Client) -> None:
    await client.create("a")
    put = {"StreamName": "a", "ExplicitHashKey": "0", **GOOD}
    old = await client.iterator("a", "TRIM_HORIZON")
    start = await client.iterator("a")

    async def poll(token: str, way: str, account: str = "", **more: Any) -> tuple[int, Any]:
        """Both ways the same, and counted alike; how many records, and the next iterator."""
        answers, counts = [], []
        client.counted()
        for begun in (True, False):
            request = {"ShardIterator": token, **more}
            went, answer = await client.ask("GetRecords", request, begun=begun, account=account)
            assert went == (way if begun else "whole")
            following = answer["body"].get("NextShardIterator")
            if following is not None:
                codec = client.server._dispatcher._reads._iterators
                answer["body"]["NextShardIterator"] = str(
                    codec.read(following, client.clock.now_ms())
                )
            answers.append(answer)
            await asyncio.sleep(0)  # polls are counted when they have been answered
            counts.append(client.counted())
        assert answers[0] == answers[1]
        assert counts[0] == counts[1]
        return len(answers[0]["body"].get("Records", ())), following

    assert (await poll(start, "now"))[0] == 0
    assert (await poll(start, "now", Limit=1))[0] == 0
    assert (await poll(f'"{start}"', "now"))[0] == 0
    await client.good("PutRecord", put)
    count, after_one = await poll(start, "now")
    assert count == 1
    await client.quiet()
    assert (await poll(after_one, "now"))[0] == 0
    two = {"Data": "YWJj", "PartitionKey": "k", "ExplicitHashKey": "0"}
    await client.good("PutRecords", {"StreamName": "a", "Records": [two, two]})
    assert (await poll(old, "whole"))[0] == 3  # it is not what was written last
    assert (await poll(after_one, "whole", Limit=1))[0] == 1  # more behind it
    count, tail = await poll(after_one, "now", Limit=2)
    assert count == 2
    await client.quiet()

    for wrong in (tail[:-1], tail[:-4] + "AAAA", "", "x" * 513):
        await poll(wrong, "whole")
    for more in ({"DryRun": True}, {"Limit": 0}, {"Limit": 10_001}, {"Limit": "1"}, {"Else": 1}):
        await poll(tail, "whole", **more)
    await poll(tail, "now", StreamARN="arn:aws:kinesis:us-east-1:123456789012:stream/other")
    await poll(tail, "whole", account="111122223333")

    await client.clock.advance(ITERATOR_LIFETIME_MS)
    await poll(tail, "now")
    await client.clock.advance(1)
    await poll(tail, "whole")  # expired
    tail = await client.iterator("a")
    request = {"StreamName": "a", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "9"}
    await client.good("SplitShard", request)
    assert (await poll(tail, "whole"))[1] is None  # its end, with its children
    other = await client.iterator("a", shard=1)
    await client.good("DeleteStream", {"StreamName": "a"})
    await poll(other, "whole")


@pytest.mark.parametrize("order", ["poll, put", "put, poll"])
async def test_a_poll_finds_what_is_put_in_the_same_turn(
    client: Client, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader would wait for it until it has been told that there is nothing, and asks again."""
    monkeypatch.setattr(group_commit, "IDLE_MARK_S", 60)  # somebody has put of late
    monkeypatch.setattr(InLoop, "mean_s", 10)  # the disk is quick
    await client.create("a")
    await put_one(client)
    put = {"StreamName": "a", "ExplicitHashKey": "0", **GOOD}
    requests: dict[str, tuple[str, Any]] = {
        "poll": ("GetRecords", {"ShardIterator": await client.iterator("a")}),
        "put": ("PutRecord", put),
    }
    client.counted()
    begun = {name: client.begin(*requests[name]) for name in order.split(", ")}
    assert all(isinstance(one, Later) for one in begun.values())
    (_, polled), (_, stored) = [await told(begun[name]) for name in ("poll", "put")]
    (record,) = polled["body"]["Records"]
    assert record["SequenceNumber"] == stored["body"]["SequenceNumber"]
    await asyncio.sleep(0)
    ((_, counts),) = client.counted()["a"]
    assert (counts.gets, counts.records_out) == (1, 1)
    following = {"ShardIterator": polled["body"]["NextShardIterator"]}
    went, answer = await client.ask("GetRecords", following)
    assert (went, answer["body"]["Records"]) == ("later", [])  # nobody puts after all
    assert answer["body"]["MillisBehindLatest"] == 0


async def test_a_poll_of_a_stream_that_is_deleted_meanwhile_finds_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "IDLE_MARK_S", 60)
    await client.create("a")
    await put_one(client)
    begun = client.begin("GetRecords", {"ShardIterator": await client.iterator("a")})
    assert isinstance(begun, Later)
    await client.good("DeleteStream", {"StreamName": "a"})
    await client.clock.advance(1)
    await until(lambda: not client.server._catalog._open)
    _, answer = await told(begun)
    assert (answer["status"], answer["body"]["Records"]) == (200, [])


async def at(client: Client, number: str) -> str:
    request = {
        "StreamName": "a", "ShardId": "shardId-000000000000",
        "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number,
    }  # fmt: skip
    token: str = (await client.good("GetShardIterator", request))["ShardIterator"]
    return token


async def test_what_has_expired_is_not_polled(client: Client) -> None:
    """Also while it is what was written last."""
    await client.create("a")
    number = await put_one(client)
    for hours, found in ((23, [number]), (2, [])):
        await client.clock.advance(hours * 3_600_000)
        token = await at(client, number)
        for begun in (True, False, True):
            _, answer = await client.ask("GetRecords", {"ShardIterator": token}, begun=begun)
            assert [record["SequenceNumber"] for record in answer["body"]["Records"]] == found


async def test_who_has_missed_what_expired_is_told(client: Client) -> None:
    await client.create("a")
    numbers = []
    for _ in range(2):
        numbers.append(await put_one(client))
        await client.clock.advance(23 * 3_600_000)
    for number, expired, way in ((numbers[0], True, "whole"), (numbers[1], False, "now")):
        token = await at(client, number)
        for _ in range(2):  # the second time it is known where the first unexpired one is
            went, answer = await client.ask("GetRecords", {"ShardIterator": token})
            found = [record["SequenceNumber"] for record in answer["body"]["Records"]]
            assert (went, found) == (way, numbers[1:])
            assert ("x-headrace-records-expired" in answer["headers"]) == expired


async def test_a_reader_at_the_tail_of_a_quiet_stream_is_there_after_the_next_put(
    client: Client,
) -> None:
    """Between the puts there is a MARK, which has a frame's number too."""
    await client.create("a")
    await put_one(client)
    token = await client.iterator("a")
    (opened,) = client.server._catalog._open.values()
    opened.log._log.write_mark()  # type: ignore[attr-defined]
    await put_one(client)
    went, answer = await client.ask("GetRecords", {"ShardIterator": token})
    assert (went, len(answer["body"]["Records"])) == ("now", 1)


async def test_a_put_goes_to_the_shards_that_are_open(client: Client) -> None:
    await client.create("a")
    put = {"StreamName": "a", "ExplicitHashKey": "0", **GOOD}
    assert (await client.good("PutRecord", put))["ShardId"] == "shardId-000000000000"
    split = {"StreamName": "a", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "9"}
    await client.good("SplitShard", split)
    went, answer = await client.ask("PutRecord", put)
    assert (went, answer["body"]["ShardId"]) == ("later", "shardId-000000000003")


async def test_a_stream_that_comes_or_goes_takes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, state_delay_ms=1_000) as client:
        put = {"StreamName": "a", **GOOD}
        await client.create("a")
        assert await client.ask("PutRecord", put) == await client.ask("PutRecord", put, begun=False)
        await client.clock.advance(1_000)
        for _ in range(1_000):
            if (await client.ask("PutRecord", put))[1]["status"] == 200:
                break
            await asyncio.sleep(0.01)
        assert (await client.ask("PutRecord", put))[0] == "later"
        token = await client.iterator("a")
        await client.quiet()
        assert (await client.ask("GetRecords", {"ShardIterator": token}))[0] == "now"
        await client.good("DeleteStream", {"StreamName": "a"})
        for operation, request in (("PutRecord", put), ("GetRecords", {"ShardIterator": token})):
            went, answer = await client.ask(operation, request)
            assert (went, answer) == await client.ask(operation, request, begun=False)
            assert answer["body"]["__type"] == "ResourceNotFoundException"


async def test_with_limits_nothing_is_begun(tmp_path: Path) -> None:
    async with serving(tmp_path, state_delay_ms=0, limits="aws") as client:
        await client.create("a")
        put = {"StreamName": "a", "ExplicitHashKey": "0", **GOOD}
        assert (await client.ask("PutRecord", put))[0] == "whole"
        token = await client.iterator("a")
        statuses = []
        for _ in range(6):
            went, answer = await client.ask("GetRecords", {"ShardIterator": token})
            assert went == "whole"
            statuses.append(answer["status"])
        assert statuses == [200] * 5 + [400]


def left_behind() -> list[object]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, StorageFull | Later)]


async def test_a_put_that_is_refused_late_leaves_nothing(tmp_path: Path) -> None:
    """Clients go on trying for as long as a disk is full."""
    files = FaultyFiles(SystemFiles())
    async with serving(tmp_path, files, state_delay_ms=0) as client:
        await client.create("a")
        await put_one(client)
        files.fail_always("write_at", no_space)
        for _ in range(5):
            went, answer = await client.ask("PutRecord", {"StreamName": "a", **GOOD})
            assert (went, answer["status"]) == ("later", 503)
        # a writer thread holds what it has raised until it has gone on
        await until(lambda: not left_behind())
        files.heal()
        await put_one(client)


async def test_where_records_are_spread_routing_is_another(client: Client) -> None:
    await client.create("a", **AUTO)
    went, answer = await client.ask("PutRecord", {"StreamName": "a", **GOOD})
    assert (went, answer["status"]) == ("whole", 200)


async def test_nothing_is_begun_for_pages_and_producers(client: Client) -> None:
    """What their headers say is looked at first."""
    await client.create("a")
    body = json.dumps({"StreamName": "a", **GOOD}).encode()
    usual = [(name.lower().encode(), value.encode()) for name, value in SIGNED.items()]
    usual += [(b"content-type", JSON), (b"x-amz-target", b"Kinesis_20131202.PutRecord")]
    for header in ((b"origin", b"https://elsewhere.example"), (b"x-headrace-producer", b"p")):
        answering = client._answer_whole([*usual, header], body)
        assert asyncio.iscoroutine(answering)
        status, _, _ = await answering
        assert status != 200
