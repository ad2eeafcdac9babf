"""One shard through the runner: what it cannot hand over, what it waits for, what it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.triggers.outbox import Outbox
from headrace.triggers.retry import FOREVER
from headrace.triggers.testing import MemoryLease
from shard_support import RECORDING, MakeShard, document
from triggers_support import until


class TestOversized:
    @pytest.mark.parametrize(("retries", "count"), [(0, 1), (2, 3), (FOREVER, 1)])
    async def test_it_is_never_sent_and_the_next_record_is_done(
        self, make_shard: MakeShard, retries: int, count: int
    ) -> None:
        """Scenario 4."""
        shard = make_shard(retries=retries)
        _large, small = shard.lease.put(bytes(5 * 1024 * 1024), b"b")
        await shard.until_saved(small.sequence_number)
        assert shard.calls == [["b"]]
        (letter,) = shard.letters
        assert document(letter)["requestContext"]["approximateInvokeCount"] == count
        assert "responseContext" not in document(letter)
        assert len((letter / "event.json").read_bytes()) > 6_291_456
        assert shard.lease.prepared == []


class TestPauses:
    async def test_a_missing_function_pauses_without_spending_retries(
        self, make_shard: MakeShard, tmp_path: Path
    ) -> None:
        shard = make_shard(source="import nothing_of_this_name\n", retries=0)
        (record,) = shard.lease.put(b"a")
        for _ in range(3):
            await shard.until_waiting()
            await shard.clock.advance(60_000)
        (trouble,) = shard.tools.troubles.current()
        assert "function-handler: paused: cannot load" in trouble
        assert "nothing_of_this_name" in trouble
        assert shard.tools.stats.invocations == 0

        shard.tools.file.path.write_text(
            RECORDING.format(calls=str(tmp_path / "calls"), act="pass")
        )
        await shard.until_saved(record.sequence_number)
        assert shard.calls == [["a"]]
        assert shard.letters == []
        assert shard.tools.troubles.current() == ()

    async def test_a_changed_file_ends_the_pause_within_a_second(
        self, make_shard: MakeShard, tmp_path: Path
    ) -> None:
        shard = make_shard(source="def other(e, c): ...\n", retries=0)
        (record,) = shard.lease.put(b"a")
        for _ in range(5):  # by now the pauses are long
            await shard.until_waiting()
            await shard.clock.advance(16_000)
        await shard.until_waiting()
        shard.tools.file.path.write_text("def handler(e, c): ...\n")
        await shard.clock.advance(1_000)
        await until(lambda: shard.lease.saved == [record.sequence_number])

    async def test_an_unwritable_dead_letter_folder_pauses_the_shard(
        self, make_shard: MakeShard, tmp_path: Path
    ) -> None:
        """Scenario 39: Lambda would drop the batch here."""
        blocked = tmp_path / "blocked"
        blocked.write_text("a file where the folder should be")
        shard = make_shard("raise ValueError", retries=0, size=1, letters=blocked / "letters")
        first, second = shard.lease.put(b"a", b"b")
        for _ in range(3):
            await shard.until_waiting()
            await shard.clock.advance(60_000)
        assert shard.lease.saved == []
        assert shard.calls == [["a"]]  # it is not run again either
        (trouble,) = shard.tools.troubles.current()
        assert "cannot write a dead letter" in trouble
        assert str(blocked) in trouble

        blocked.unlink()
        await shard.until_saved(second.sequence_number)
        assert shard.lease.saved == [first.sequence_number, second.sequence_number]
        assert len(shard.letters) == 2
        assert shard.tools.troubles.current() == ()


class TestLoss:
    async def test_records_that_expired_unread_are_told_of(self, make_shard: MakeShard) -> None:
        """Scenario 43: retention overtook the checkpoint; it goes on, and not in silence."""
        shard = make_shard(size=1)
        (first,) = shard.lease.put(b"a")
        await shard.until_saved(first.sequence_number)
        shard.lease.put(b"b", b"c")
        shard.lease.expire()
        (last,) = shard.lease.put(b"d")
        await shard.until_saved(last.sequence_number)
        assert shard.calls == [["a"], ["d"]]
        (trouble,) = shard.tools.troubles.current()
        assert f"the records after {first.sequence_number} and before" in trouble
        assert "raise the stream's retention" in trouble


class TestSteps:
    async def test_a_dead_letter_is_prepared_before_it_is_written(
        self, make_shard: MakeShard
    ) -> None:
        steps = []
        shard = make_shard("raise ValueError", retries=0, seam=lambda step: steps.append(step))
        (record,) = shard.lease.put(b"a")
        await shard.until_saved(record.sequence_number)
        ((number, state),) = shard.lease.prepared
        assert number == record.sequence_number
        letter = Outbox.decode(state).dead_letter
        assert letter is not None
        assert shard.letters[0].name == letter.name
        assert (shard.letters[0] / "event.json").read_bytes() == letter.event
        await until(lambda: "after_save" in steps)
        assert steps == [
            "before_invoke",
            "after_invoke",
            "after_prepare",
            "after_send",
            "before_save",
            "after_save",
        ]

    async def test_a_pending_checkpoint_is_settled_without_invoking(
        self, make_shard: MakeShard
    ) -> None:
        first = make_shard("raise ValueError", retries=0)
        (record,) = first.lease.put(b"a")
        await first.until_saved(record.sequence_number)
        ((number, state),) = first.lease.prepared

        lease = MemoryLease()
        lease.pending_checkpoint, lease.pending_state = number, state
        letters = first.tools.letters.with_name("elsewhere")
        second = make_shard(lease=lease, letters=letters)
        await until(lambda: lease.saved == [number])
        assert first.calls == [["a"]]  # both write to the same file
        assert len(second.letters) == 1

    async def test_a_pending_state_of_a_newer_headrace_is_not_thrown_away(
        self, make_shard: MakeShard
    ) -> None:
        lease = MemoryLease()
        lease.pending_checkpoint, lease.pending_state = "1", b"\x93abc"
        shard = make_shard(lease=lease)
        with pytest.raises(Exception, match="cannot be read"):
            await shard.task
        assert lease.saved == []


class TestLambdasLimits:
    async def test_an_error_of_megabytes_fits_beside_the_checkpoint(
        self, make_shard: MakeShard
    ) -> None:
        """The largest event there is, the longest output and traceback: below 8 MiB together."""
        shard = make_shard("print('x' * 1_000_000); raise ValueError('y' * 1_000_000)", retries=0)
        (record,) = shard.lease.put(bytes(4_700_000))
        await shard.until_saved(record.sequence_number)
        ((_, state),) = shard.lease.prepared
        assert 6_000_000 < len(state) < 8 * 1024 * 1024
