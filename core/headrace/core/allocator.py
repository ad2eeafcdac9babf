"""Memory of a process that serves: freed blocks stay at hand, what lives on is not looked at."""

from __future__ import annotations

import ctypes
import gc

from headrace.core.limits import MIB

_M_TRIM_THRESHOLD = -1  # malloc.h of glibc
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 32 * MIB  # glibc's own upper bound for the mmap threshold


def keep_freed_memory() -> bool:
    """Have glibc reuse freed blocks of up to 32 MiB instead of giving each back at once.

    A request of 0.7 MB passes through several buffers of its size. By default each is mapped
    fresh, faulted in page by page and unmapped again: 200 page faults a request, a tenth of the
    CPU time of a PutRecords of 500 x 1 KiB, and far more where a hypervisor backs guest memory on
    first touch. The process keeps at most about as much more memory as its busiest moment used.

    False where the C library is another (musl, macOS): nothing is changed there.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)) and bool(
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
    )


def leave_out_of_collections(*, again: bool = False) -> None:
    """Have no collection look at what there is now: modules and all that a start has made.

    They live as long as the process, and walking them holds up every request by 10 ms, now and
    again (measured, PutRecord over 64 connections: p99 17-25 ms with them, 8-12 ms without).
    `again` is for what was loaded later, and does nothing in a process that was never asked to:
    a server that somebody embeds leaves their objects to them.
    """
    if not again or gc.get_freeze_count():
        gc.freeze()
