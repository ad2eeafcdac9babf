"""What a trigger has done and how far behind it is, counted since the start."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class TriggerStats:
    """`invocations` counts retries too; `errors` the invocations that failed, even in part."""

    invocations: int = 0
    errors: int = 0
    records: int = 0
    emitted: int = 0
    dead_letters: int = 0
    _in_hand_ms: dict[str, int] = field(default_factory=dict)
    _behind_ms: dict[str, int] = field(default_factory=dict)

    def has_read(self, shard_id: str, millis_behind_latest: int) -> None:
        self._behind_ms[shard_id] = millis_behind_latest

    def has_in_hand(self, shard_id: str, last_arrival_ms: int) -> None:
        """A batch whose last record arrived then is being worked on."""
        self._in_hand_ms[shard_id] = last_arrival_ms

    def has_done(self, shard_id: str) -> None:
        self._in_hand_ms.pop(shard_id, None)

    def has_left(self, shard_id: str) -> None:
        self._in_hand_ms.pop(shard_id, None)
        self._behind_ms.pop(shard_id, None)

    def iterator_age_ms(self, now_ms: int) -> int:
        """Of the shard furthest behind: the age of the last record of the batch in hand, which
        grows while it is retried; without one, how far the last read was behind the stream."""
        in_hand = (now_ms - arrival_ms for arrival_ms in self._in_hand_ms.values())
        idle = (b for shard, b in self._behind_ms.items() if shard not in self._in_hand_ms)
        return max((0, *in_hand, *idle))

    def figures(self, now_ms: int) -> dict[str, int]:
        return {
            "invocations": self.invocations,
            "errors": self.errors,
            "records": self.records,
            "emitted": self.emitted,
            "dead_letters": self.dead_letters,
            "iterator_age_ms": self.iterator_age_ms(now_ms),
        }
