"""The busiest minute of the last 30 days, and what each shard took in the last one.

On-demand scaling works from these. What is refused counts too, or a stream at its limit would
seem to need no more; but only up to as much again as was taken, because whoever is refused asks
again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from headrace.core.model.usage import Counts, Peak

PEAK_HOURS = 30 * 24  # on-demand mode, developer guide: the peak of the last 30 days


class PeakWindow:
    """The greatest rates of the last 30 days. Keeps only hours that no later one exceeds."""

    def __init__(self, known: Iterable[tuple[int, Peak]] = ()) -> None:
        self._bytes: deque[tuple[int, int]] = deque()
        self._records: deque[tuple[int, int]] = deque()
        for hour, peak in known:
            self.add(hour, peak)

    def add(self, hour: int, peak: Peak) -> None:
        """A rate was seen in that Unix hour."""
        _push(self._bytes, hour, peak.bytes_per_s)
        _push(self._records, hour, peak.records_per_s)

    def at(self, hour: int) -> Peak:
        """The greatest of the 30 days that end with that hour."""
        since = hour - PEAK_HOURS + 1
        return Peak(_greatest(self._bytes, since), _greatest(self._records, since))


def _push(rates: deque[tuple[int, int]], hour: int, rate: int) -> None:
    if rates:
        hour = max(hour, rates[-1][0])  # the wall clock was set back
    while rates and rates[-1][1] <= rate:
        rates.pop()
    if not rates or rates[-1][0] < hour:
        rates.append((hour, rate))


def _greatest(rates: deque[tuple[int, int]], since: int) -> int:
    while rates and rates[0][0] < since:
        rates.popleft()
    return rates[0][1] if rates else 0


class Minute:
    """What has come in since the minute began, by stream and shard."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], list[int]] = {}

    def add(self, taken: Mapping[tuple[str, int], Counts]) -> None:
        """Counts that are added up: bytes, records, refused bytes, refused records."""
        for key, counts in taken.items():
            if counts.records_in or counts.throttled_records:
                sums = self._counts.setdefault(key, [0, 0, 0, 0])
                sums[0] += counts.bytes_in
                sums[1] += counts.records_in
                sums[2] += counts.throttled_bytes
                sums[3] += counts.throttled_records

    def rates(self, elapsed_ms: int) -> dict[str, dict[int, Peak]]:
        """By stream uid and shard, of the shards that took anything."""
        found: dict[str, dict[int, Peak]] = {}
        for (uid, shard), (size, records, refused_size, refused) in self._counts.items():
            size += min(refused_size, size)
            records += min(refused, records)
            found.setdefault(uid, {})[shard] = Peak(
                size * 1000 // elapsed_ms, records * 1000 // elapsed_ms
            )
        return found


def total(rates: Iterable[Peak]) -> Peak:
    """Of shards that took these at the same time."""
    rates = list(rates)
    return Peak(sum(r.bytes_per_s for r in rates), sum(r.records_per_s for r in rates))
