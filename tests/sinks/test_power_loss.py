"""The power goes at any moment: only what was synced is sure to be there, and that is enough.

A recorder sits below the folder store and keeps book of what is durable. After each call it can
say what a disk may look like if the power went now: bytes of a file since its last fsync may be
there, be missing or be zeros; of the changes to a folder since its last fsync the first n have
happened, for any n. Every such state must let the next start come out even.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headrace.core.model.records import Record
from headrace.sinks.testing import ScriptedShard, make_records
from sinks_support import assert_exactly, deliver, open_context, sink_config

SHARD = "shardId-000000000000"


@dataclass(eq=False)
class Inode:
    durable: bytes = b""
    content: bytes = b""


@dataclass
class Folder:
    durable: dict[str, Inode | None] = field(default_factory=dict)  # None is a sub-folder
    pending: list[tuple[str, str, Inode | None]] = field(default_factory=list)

    def after(self, count: int) -> dict[str, Inode | None]:
        names = dict(self.durable)
        for action, name, inode in self.pending[:count]:
            if action == "add":
                names[name] = inode
            else:
                names.pop(name, None)
        return names


class Recorder:
    """Watches the calls below one root and knows what is durable."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.folders: dict[Path, Folder] = {root: Folder()}
        self.inodes: dict[Path, Inode] = {}
        self.open_files: dict[int, Path] = {}
        self.after_call: Callable[[], None] = lambda: None
        for owner, name in (
            (os, "open"),
            (os, "write"),
            (os, "fsync"),
            (os, "close"),
            (Path, "hardlink_to"),
            (Path, "unlink"),
            (Path, "mkdir"),
        ):
            patch.setattr(owner, name, self._wrap(getattr(owner, name), getattr(self, f"_{name}")))

    def _wrap(self, call: Callable[..., Any], note: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            if note(result, *args):
                self.after_call()
            return result

        return wrapped

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, Path) and path.is_relative_to(self.root)

    def _open(self, result: int, path: Any, flags: int, *_: Any) -> bool:
        if not self._is_ours(path):
            return False
        self.open_files[result] = path
        if flags & os.O_CREAT:
            inode = self.inodes[path] = Inode()
            self.folders[path.parent].pending.append(("add", path.name, inode))
        return True

    def _write(self, result: int, descriptor: int, data: Any) -> bool:
        path = self.open_files.get(descriptor)
        if path is not None:
            self.inodes[path].content += bytes(data[:result])
        return path is not None

    def _fsync(self, _: None, descriptor: int) -> bool:
        path = self.open_files.get(descriptor)
        if path is None:
            return False
        if path in self.folders:
            folder = self.folders[path]
            folder.durable = folder.after(len(folder.pending))
            folder.pending.clear()
        else:
            self.inodes[path].durable = self.inodes[path].content
        return True

    def _close(self, _: None, descriptor: int) -> bool:
        return self.open_files.pop(descriptor, None) is not None

    def _hardlink_to(self, _: None, path: Path, target: Path) -> bool:
        if self._is_ours(path):
            inode = self.inodes[path] = self.inodes[target]
            self.folders[path.parent].pending.append(("add", path.name, inode))
        return self._is_ours(path)

    def _unlink(self, _: None, path: Path, *rest: Any) -> bool:
        if self.inodes.pop(path, None) is None:
            return False
        self.folders[path.parent].pending.append(("remove", path.name, None))
        return True

    def _mkdir(self, _: None, path: Path, *rest: Any) -> bool:
        if self._is_ours(path) and path != self.root:
            self.folders[path] = Folder()
            self.folders[path.parent].pending.append(("add", path.name, None))
        return self._is_ours(path)

    def leave(self, target: Path, chance: random.Random) -> None:
        """One of the states the disk may be in if the power goes now."""
        self._leave_folder(self.root, target, chance)

    def _leave_folder(self, folder: Path, target: Path, chance: random.Random) -> None:
        os.makedirs(target, exist_ok=True)
        book = self.folders[folder]
        for name, inode in book.after(chance.randint(0, len(book.pending))).items():
            if inode is None:
                self._leave_folder(folder / name, target / name, chance)
                continue
            unsure = inode.content[len(inode.durable) :]
            kept = chance.choice((b"", unsure, unsure[: len(unsure) // 2], bytes(len(unsure))))
            (target / name).write_bytes(inode.durable + kept)


def records(count: int) -> list[Record]:
    return make_records(
        [json.dumps({"id": i, "late": [i] * (i % 3)}).encode() for i in range(count)]
    )


async def test_whatever_a_power_cut_leaves_comes_out_even(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = int(os.environ.get("HEADRACE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    chance = random.Random(seed)
    shard = ScriptedShard(records(200), batch_records=40)
    (tmp_path / "lake").mkdir()
    left: list[tuple[Path, str | None]] = []
    with monkeypatch.context() as patch:
        recorder = Recorder(tmp_path / "lake", patch)

        def cut() -> None:
            target = tmp_path / f"cut-{len(left)}" / "lake"
            left.append((target, shard.checkpoint))
            recorder.leave(target, chance)

        recorder.after_call = cut
        await deliver(sink_config("lake"), tmp_path, shard)
    assert len(left) > 50
    whole = 0
    for target, checkpoint in left:
        again = ScriptedShard(shard.records, batch_records=40)
        again.checkpoint = None if checkpoint == "SHARD_END" else checkpoint
        await deliver(sink_config("lake"), target.parent, again.restart())
        context = await open_context(sink_config("lake"), target.parent)
        await assert_exactly(context.store, {SHARD: shard.records})
        whole += not list(target.rglob("*.tmp"))
    assert whole == len(left), "no temporary file outlives the next start"


class Died(Exception):
    """What a worker does that is killed, seen from within."""


class Worst(random.Random):
    """Of all that was never synced, nothing is left."""

    def randint(self, a: int, b: int) -> int:
        return a


@pytest.mark.parametrize("changes", range(1, 13))
async def test_a_worker_dies_before_it_syncs_and_the_power_goes_after_the_next(
    changes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another has linked is there, and not sure to stay: the next one must make it so.

    The first dies between the making of a folder, schema, plan, file or done entry and the sync
    of the folder that it is in; the power goes at any moment of the second.
    """
    config = sink_config("lake", buffer={"size": 500})
    shard = ScriptedShard(records(80), batch_records=40)
    (tmp_path / "lake").mkdir()
    with monkeypatch.context() as patch:
        recorder = Recorder(tmp_path / "lake", patch)
        left = changes

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def made(*args: Any, **kwargs: Any) -> None:
                nonlocal left
                call(*args, **kwargs)
                left -= 1
                if not left:
                    raise Died

            return made

        with monkeypatch.context() as fatal:
            fatal.setattr(Path, "hardlink_to", deadly(Path.hardlink_to))
            fatal.setattr(Path, "mkdir", deadly(Path.mkdir))
            with pytest.raises(Died):
                await deliver(config, tmp_path, shard)
        cuts: list[tuple[Path, str | None]] = []
        calls = itertools.count(1)

        def cut() -> None:
            target = tmp_path / f"cut-{len(cuts)}" / "lake"
            cuts.append((target, second.checkpoint))
            recorder.leave(target, Worst())

        def cut_at_times() -> None:
            if next(calls) % 9 == 0:
                cut()

        second = shard.restart()
        second.checkpoint = None if second.checkpoint == "SHARD_END" else second.checkpoint
        second = second.restart()
        recorder.after_call = cut_at_times
        await deliver(config, tmp_path, second)
        cut()
    for target, checkpoint in cuts:
        last = ScriptedShard(shard.records, batch_records=40)
        last.checkpoint = None if checkpoint == "SHARD_END" else checkpoint
        await deliver(config, target.parent, last.restart())
        context = await open_context(config, target.parent)
        await assert_exactly(context.store, {SHARD: shard.records})


async def test_the_recorder_finds_a_missing_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would fail if the store did not sync its files."""
    chance = random.Random(1)
    (tmp_path / "lake").mkdir()
    with monkeypatch.context() as patch:
        recorder = Recorder(tmp_path / "lake", patch)
        real = recorder._fsync
        patch.setattr(os, "fsync", lambda fd: real(None, fd) if _is_folder(fd) else None)
        shard = ScriptedShard(records(200), batch_records=40)
        await deliver(sink_config("lake"), tmp_path, shard)
        recorder.leave(tmp_path / "cut" / "lake", chance)
    data = [path.read_bytes() for path in (tmp_path / "cut").rglob("*.parquet")]
    assert data and not all(item.endswith(b"PAR1") for item in data)


def _is_folder(descriptor: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{descriptor}")
