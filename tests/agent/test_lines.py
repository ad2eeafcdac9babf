"""What becomes of lines: unfinished ones, over-long ones, odd bytes, lines not in the format."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from agent_support import Rig
from headrace.core.limits import DEFAULT_MAX_RECORD_BYTES, MIB
from headrace.core.model.hashing import hash_key


async def test_an_unfinished_line_is_held_until_its_newline(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    with log.path.open("ab", buffering=0) as file:
        file.write(b"first\nhalf of")
        await rig.step(35)
        assert rig.lines == [b"first"]
        file.write(b" the second\n")
        await rig.step()
    assert rig.lines == [b"first", b"half of the second"]
    await rig.stop()


async def test_crash_in_the_middle_of_a_line(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    with log.path.open("ab", buffering=0) as file:
        file.write(b"first\nhalf of")
        await rig.step_into_crash(1)
        file.write(b" the second\n")
        await rig.step()
    assert rig.lines == [b"first", b"half of the second"]
    await rig.stop()


async def test_the_unfinished_last_line_of_a_rotated_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.path.write_bytes(b"first\nnever finished")
    await rig.step()
    old = log.rotate()
    await rig.step(10)
    assert rig.lines == [b"first"], "its writer may still finish it"
    await rig.step(30)
    assert rig.lines == [b"first", b"never finished"]
    with old.open("ab") as file:
        file.write(b" after all\n")
    await rig.settle()
    assert rig.lines == [b"first", b"never finished", b" after all"]
    await rig.stop()


async def test_the_unfinished_last_line_stays_cut_where_it_was_after_a_crash(
    tmp_path: Path,
) -> None:
    """Shipped, but not known to be when the agent died; then its writer finished it."""
    rig = Rig(tmp_path)
    log = rig.log()
    log.path.write_bytes(b"first\nnever finished")
    await rig.step()
    old = log.rotate()
    await rig.step(29)
    await rig.step_into_crash(1)
    assert rig.lines == [b"first", b"never finished"]
    with old.open("ab") as file:
        file.write(b" after all\n")
    await rig.settle()
    assert rig.lines == [b"first", b"never finished", b" after all"]
    await rig.stop()


async def test_a_deleted_file_ships_its_unfinished_last_line(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    log.path.write_bytes(b"first\nnever finished")
    await rig.step()
    log.path.unlink()
    await rig.settle()
    assert rig.lines == [b"first", b"never finished"]
    assert rig.positions() == []
    await rig.stop()


async def test_bytes_that_are_no_text_and_lines_across_read_borders(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    odd = [b"\xff\xfe\x00", "grüße, 日本語".encode(), b"crlf\r", b"", b"\x1b[31m", b"last"]
    log.write(*odd)
    # Lines of every length around the border of the 1 MiB that is read at a time.
    log.write(*["x" * 1023] * 1023, "x" * (1023 - sum(map(len, odd)) - len(odd) - 40))
    log.write(*("é" * n for n in range(40)))
    assert log.path.read_bytes()[MIB - 1 :].startswith("é".encode()[1:])
    await rig.step()
    await rig.stop()
    assert rig.lines == log.written


async def test_a_10_mib_line_is_split_and_what_follows_is_whole(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    log = rig.log()
    long = bytes(range(32, 127)) * (10 * MIB // 95)
    log.write("before", long, "after", "and after")
    await rig.step()
    limit = rig.config.flows[0].max_line
    before, *parts, after, last = rig.sink.records
    assert (before.data, after.data, last.data) == (b"before", b"after", b"and after")
    assert b"".join(part.data for part in parts) == long
    assert [part.sequence for part in parts] == [7 + n * limit for n in range(len(parts))]
    assert all(
        len(part.data) + len(part.partition_key) <= DEFAULT_MAX_RECORD_BYTES for part in parts
    )
    line_key = before.partition_key.replace(".0.0", ".0.7")
    assert [part.partition_key for part in parts] == [
        f"{line_key}+{n * limit}" for n in range(len(parts))
    ]
    assert {part.shard for part in parts} == {hash_key(line_key) * 4 >> 128}
    assert rig.running.counters.long_lines_split == 1
    assert rig.running.counters.lines_shipped == 4
    await rig.stop()


async def test_a_long_line_that_grows_slowly_and_crashes(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_line="1KiB")
    log = rig.log()
    whole = b"0123456789" * 1000
    with log.path.open("ab", buffering=0) as file:
        for start in range(0, len(whole), 700):
            file.write(whole[start : start + 700])
            if start % 3 == 0:
                await rig.step_into_crash(1)
            else:
                await rig.step()
        file.write(b"\nnext\n")
        await rig.step(2)
    *parts, last = rig.lines
    assert [len(part) for part in parts] == [1024] * 9 + [784]
    assert b"".join(parts) == whole
    assert last == b"next"
    await rig.stop()


@pytest.mark.parametrize("length", [1023, 1024, 1025, 2048, 2049])
@pytest.mark.parametrize("is_slow", [False, True])
async def test_lines_about_as_long_as_allowed(tmp_path: Path, length: int, is_slow: bool) -> None:
    rig = Rig(tmp_path, max_line="1KiB")
    log = rig.log()
    line = b"x" * length
    with log.path.open("ab", buffering=0) as file:
        file.write(line)
        if is_slow:
            await rig.step()
        file.write(b"\nnext\n")
        await rig.step()
    assert b"".join(rig.lines[:-1]) == line
    assert max(map(len, rig.lines)) <= 1024
    assert len(rig.lines) == -(-length // 1024) + 1
    await rig.stop()


async def test_another_max_line_after_a_crash_loses_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_line="1KiB")
    log = rig.log()
    line = bytes(range(48, 58)) * 500
    log.write(line, "next")
    await rig.step_into_crash(3)
    rig.flows[0]["max_line"] = "2KiB"
    await rig.step()
    await rig.stop()
    joined = b"".join(rig.lines)
    assert joined.endswith(line + b"next")


async def test_a_long_line_in_a_format_is_wrapped_with_its_place(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_line="4KiB", format="json")
    log = rig.log()
    text = '{"a": "' + '"' * 20_000
    log.write('{"n": 1}', text, '{"n": 2}')
    await rig.step()
    records = [json.loads(line) for line in rig.lines]
    assert records[0] == {"n": 1}
    assert records[-1] == {"n": 2}
    parts = records[1:-1]
    assert "".join(part["raw"] for part in parts) == text
    assert {part["line_offset"] for part in parts} == {9}
    assert [part["offset"] for part in parts] == [
        9 + sum(len(other["raw"]) for other in parts[:n]) for n in range(len(parts))
    ]
    assert {part["error"] for part in parts} == {"line longer than 4096 bytes"}
    assert {part["file"] for part in parts} == {str(log.path)}
    assert max(map(len, rig.lines)) <= 4096
    await rig.stop()


async def test_a_line_not_in_the_format_is_wrapped(tmp_path: Path) -> None:
    rig = Rig(tmp_path, format="json")
    log = rig.log()
    log.write("[1]", b'{"a": "\xff"}', '{"fine": true}', "", "nonsense")
    await rig.step()
    records = [json.loads(line) for line in rig.lines]
    where = {"error": "not a json line", "file": str(log.path)}
    assert records == [
        {**where, "offset": 0, "raw": "[1]"},
        {**where, "offset": 4, "raw_base64": base64.b64encode(b'{"a": "\xff"}').decode()},
        {"fine": True},
        {**where, "offset": 31, "raw": "nonsense"},
    ]
    counters = rig.running.counters
    assert (counters.parse_errors, counters.lines_shipped) == (3, 4)
    await rig.stop()


async def test_lines_not_in_the_format_can_be_dropped(tmp_path: Path) -> None:
    rig = Rig(tmp_path, format="json", on_parse_error="drop")
    log = rig.log()
    log.write("nonsense", '{"fine": true}', "more of it")
    await rig.step()
    assert rig.lines == [b'{"fine": true}']
    counters = rig.running.counters
    assert (counters.parse_errors, counters.lines_dropped, counters.lines_shipped) == (2, 2, 1)
    assert rig.running.health().figures["lag_bytes"] == 0
    await rig.stop()


async def test_lines_not_in_the_format_can_go_to_another_stream_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, format="json", on_parse_error="dead-letter", dead_letter="dead")
    log = rig.log()
    log.write("nonsense", '{"fine": true}', "more of it", '{"fine": 2}')
    await rig.step_into_crash(1)
    await rig.step()
    assert sorted(rig.lines) == [b'{"fine": 2}', b'{"fine": true}']
    dead = rig.sink_of("dead")
    assert [json.loads(line)["raw"] for line in dead.lines] == ["nonsense", "more of it"]
    assert dead.repeated_count == 2
    await rig.stop()
