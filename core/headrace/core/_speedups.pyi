"""The types of `_speedups.c`; what each function is for is said where its twin is defined."""

from collections.abc import Sequence

VERSION: int

def decoded_sizes(texts: Sequence[str], /) -> list[int] | None: ...
def count_up(prefix: str, upper: int, lower: int, count: int, /) -> list[str]: ...
def are_plain(keys: Sequence[str], /) -> bool: ...
def join_objects(
    around: tuple[str, str, str, str],
    data: Sequence[str],
    keys: Sequence[str],
    numbers: Sequence[str],
    start: int,
    /,
) -> tuple[bytes, bytes]: ...
