"""Files of a data folder that are gone, or older than the others: refused by name, never tidied."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api_support import boto3_client, create, read_shard, refused
from headrace.core.testing.server_process import ServerProcess

STREAMS = ("a", "b", "c")
CONTROL = ("control.sqlite", "control.sqlite-wal")


@contextlib.contextmanager
def serving(data: Path) -> Iterator[Any]:
    """boto3 on a server on `data`, which is killed in the end."""
    with (
        ServerProcess(data) as process,
        contextlib.closing(boto3_client(process.endpoint)) as kinesis,
    ):
        yield kinesis


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a record in each of STREAMS; its server was killed."""
    with serving(tmp_path / "data") as kinesis:
        for name in STREAMS:
            create(kinesis, name)
            kinesis.put_record(StreamName=name, Data=name.encode(), PartitionKey="k")
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def control_log_of(data: Path) -> dict[str, bytes]:
    """Its files, while no server runs."""
    return {name: (data / name).read_bytes() for name in CONTROL if (data / name).exists()}


def put_back(data: Path, control_log: dict[str, bytes]) -> None:
    for name in CONTROL:
        (data / name).unlink(missing_ok=True)
    for name, content in control_log.items():
        (data / name).write_bytes(content)


def assert_all_there(data: Path) -> None:
    with serving(data) as kinesis:
        for name in STREAMS:
            assert [r["Data"] for r in read_shard(kinesis, name)] == [name.encode()]


def lose_both(data: Path) -> None:
    for name in CONTROL:
        (data / name).unlink()


def lose_the_wal(data: Path) -> None:
    (data / "control.sqlite-wal").unlink()


def empty_it(data: Path) -> None:
    lose_both(data)
    (data / "control.sqlite").touch()


def flip_a_byte_of_the_wal(data: Path) -> None:
    wal = bytearray((data / "control.sqlite-wal").read_bytes())
    wal[len(wal) // 2] ^= 1
    (data / "control.sqlite-wal").write_bytes(wal)


@pytest.mark.parametrize("lose", [lose_both, lose_the_wal, empty_it, flip_a_byte_of_the_wal])
def test_a_control_log_that_does_not_know_the_streams_is_refused(
    data: Path, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    stored = contents(data / "streams")
    lose(data)
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"has records of (a|\d) streams? that .*/control\.sqlite "
        ):
            ServerProcess(data).start()
        assert contents(data / "streams") == stored
    for name in CONTROL:
        (data / name).unlink(missing_ok=True)
        shutil.copy(copy / name, data / name)
    assert_all_there(data)


def test_so_is_one_that_was_put_back_from_before_a_stream_was_made(
    data: Path, tmp_path: Path
) -> None:
    older = control_log_of(data)
    with serving(data) as kinesis:
        create(kinesis, "later")
        kinesis.put_record(StreamName="later", Data=b"x", PartitionKey="k")
    put_back(data, older)
    with pytest.raises(RuntimeError, match="has records of a stream that") as caught:
        ServerProcess(data).start()
    # as it says: without that stream it goes on
    (unknown,) = [f for f in (data / "streams").iterdir() if f.name in str(caught.value)]
    unknown.rename(tmp_path / "elsewhere")
    assert_all_there(data)


def test_a_stream_with_records_of_shards_that_the_control_log_does_not_know_is_refused(
    data: Path,
) -> None:
    older = control_log_of(data)
    with serving(data) as kinesis:
        half = str(2**127)
        kinesis.split_shard(StreamName="b", ShardToSplit="shardId-0", NewStartingHashKey=half)
        kinesis.put_record(StreamName="b", Data=b"child", PartitionKey="k")
    newer = control_log_of(data)
    put_back(data, older)
    with serving(data) as kinesis:
        with refused("InternalFailure"):
            kinesis.put_record(StreamName="b", Data=b"lost to all readers", PartitionKey="k")
        assert [r["Data"] for r in read_shard(kinesis, "a")] == [b"a"]
    put_back(data, newer)
    with serving(data) as kinesis:
        found = [r["Data"] for shard in range(3) for r in read_shard(kinesis, "b", shard)]
        assert found == [b"b", b"child"]


def lose_the_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def lose_the_segment(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def empty_the_segment(folder: Path) -> None:
    for path in folder.glob("*.seg"):
        path.write_bytes(b"")


def zero_the_segment(folder: Path) -> None:
    for path in folder.glob("*.seg"):
        path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    "lose", [lose_the_folder, lose_the_segment, empty_the_segment, zero_the_segment]
)
def test_a_stream_whose_records_are_gone_is_refused_and_the_others_are_served(
    data: Path, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    (folder,) = [f for f in (data / "streams").iterdir() if b'"Data":"Yg=="' in _bytes_of(f)]
    shutil.copytree(folder, tmp_path / "copy")
    lose(folder)
    for _ in range(2):
        with serving(data) as kinesis:
            for name in ("a", "c"):
                assert [r["Data"] for r in read_shard(kinesis, name)] == [name.encode()]
            with refused("InternalFailure"):
                kinesis.put_record(StreamName="b", Data=b"x", PartitionKey="k")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tmp_path / "copy", folder)
    assert_all_there(data)
    lose(folder)
    with serving(data) as kinesis:  # or it is given up
        kinesis.delete_stream(StreamName="b")
        create(kinesis, "b")
        kinesis.put_record(StreamName="b", Data=b"b", PartitionKey="k")
    assert_all_there(data)


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.seg"))


def test_a_stream_that_was_never_there_to_be_put_to_is_made(tmp_path: Path) -> None:
    """Killed after it was decided, before there was a log."""
    data = tmp_path / "data"
    delayed = ("--state-delay-ms", "60000")
    with (
        ServerProcess(data, arguments=delayed) as process,
        contextlib.closing(boto3_client(process.endpoint)) as kinesis,
    ):
        kinesis.create_stream(StreamName="s", ShardCount=1)
    shutil.rmtree(next((data / "streams").iterdir()))
    with serving(data) as kinesis:
        kinesis.put_record(StreamName="s", Data=b"x", PartitionKey="k")
        assert [r["Data"] for r in read_shard(kinesis, "s")] == [b"x"]
