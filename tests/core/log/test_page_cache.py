"""What stays of written segments in the page cache: asked of the kernel, page by page."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from headrace.core.limits import MIB
from headrace.core.log.page_cache import MAX_DROPS, SLACK_BYTES, STEP_BYTES, CacheBoundFiles


def is_cached(path: Path, offset: int) -> bool:
    """Whether the page at `offset` can be read without going to the disk.

    To be asked once: what it finds missing, the kernel begins to read.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(16)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this filesystem does not tell what is cached")
        raise
    finally:
        os.close(fd)
    return True


def write_steps(files: CacheBoundFiles, path: Path, count: int) -> None:
    fd = files.open_append(path)
    block = os.urandom(STEP_BYTES // 4)
    for n in range(count * 4):
        files.write_at(fd, [block[:100], block[100:]], n * len(block))
        files.sync_data(fd)
    files.close(fd)


def cached_of_four(path: Path, steps: range) -> list[int]:
    """For each step, how many of four pages within it are cached."""
    quarter = STEP_BYTES // 4
    return [
        sum(is_cached(path, step * STEP_BYTES + n * quarter + quarter // 2) for n in range(4))
        for step in steps
    ]


def skip_where_nothing_leaves_the_cache(path: Path) -> None:
    path.write_bytes(os.urandom(STEP_BYTES))
    fd = os.open(path, os.O_RDONLY)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if is_cached(path, STEP_BYTES // 2):
        pytest.skip("this filesystem keeps everything in memory")


def test_only_the_newest_writes_stay_in_the_cache(tmp_path: Path) -> None:
    """Nearly: the kernel may keep a page it is busy with, and reclaim one that could stay."""
    skip_where_nothing_leaves_the_cache(tmp_path / "probe")
    files = CacheBoundFiles(4 * STEP_BYTES)
    slack = SLACK_BYTES // STEP_BYTES
    old, new = tmp_path / "old", tmp_path / "new"
    write_steps(files, old, 8 + slack)
    write_steps(files, new, 3)  # another file's writes count as well
    dropped, newest = cached_of_four(old, range(7)), cached_of_four(new, range(3))
    newest += cached_of_four(old, range(7 + slack, 8 + slack))
    print(dropped, newest)
    assert sum(dropped) <= 4  # of 28
    assert sum(newest) >= 14  # of 16


def test_how_much_a_write_drops_is_bounded(tmp_path: Path) -> None:
    files = CacheBoundFiles(100 * STEP_BYTES)
    fd = files.open_append(tmp_path / "x")
    for n in range(100 + SLACK_BYTES // STEP_BYTES):
        files.write_at(fd, [b"x" * STEP_BYTES], n * STEP_BYTES)
    files._kept_bytes = 0  # as if all of it had come at once
    before = files._step_bytes
    while before > SLACK_BYTES:
        n += 1
        files.write_at(fd, [b"x" * STEP_BYTES], n * STEP_BYTES)
        dropped = before + STEP_BYTES - files._step_bytes
        assert 0 < dropped <= MAX_DROPS * STEP_BYTES
        before = files._step_bytes
    files.close(fd)


def test_what_left_the_cache_is_read_as_before(tmp_path: Path) -> None:
    files = CacheBoundFiles(0)
    fd = files.open_append(tmp_path / "x")
    blocks = [os.urandom(STEP_BYTES) for _ in range(5)]
    for n, block in enumerate(blocks):
        files.write_at(fd, [block], n * STEP_BYTES)
        files.sync_data(fd)
    for n, block in enumerate(blocks):
        assert files.read_at(fd, STEP_BYTES, n * STEP_BYTES) == block
    files.close(fd)


def test_writes_that_are_not_synced_are_not_lost(tmp_path: Path) -> None:
    files = CacheBoundFiles(0)
    path = tmp_path / "x"
    fd = files.open_append(path)
    block = os.urandom(STEP_BYTES)
    for n in range(3):
        files.write_at(fd, [block], n * STEP_BYTES)
    files.close(fd)
    assert path.read_bytes() == block * 3


def test_a_deleted_file_and_a_reused_descriptor_are_no_trouble(tmp_path: Path) -> None:
    files = CacheBoundFiles(2 * STEP_BYTES)
    for n in range(6):
        path = tmp_path / str(n)
        write_steps(files, path, 2)
        files.unlink(path)
    write_steps(files, tmp_path / "last", 2)
    assert is_cached(tmp_path / "last", 0)


def test_small_writes_to_many_files_count_as_the_pages_they_hold(tmp_path: Path) -> None:
    files = CacheBoundFiles(MIB)
    for n in range(2_000):
        fd = files.open_append(tmp_path / str(n))
        files.write_at(fd, [b"x" * 100], 0)
        files.sync_data(fd)
        files.close(fd)
    assert len(files._steps) <= (MIB + SLACK_BYTES) // 4096 + 1
