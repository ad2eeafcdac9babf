"""For tests of sinks, ours and yours: a store's contract, a shard, a bad network."""

from __future__ import annotations

from headrace.sinks.testing.fault_proxy import Fault, FaultProxy
from headrace.sinks.testing.scripted_shard import ScriptedShard, make_records
from headrace.sinks.testing.store_contract import check_object_store

__all__ = [
    "CRASH_POINTS",
    "Fault",
    "FaultProxy",
    "ScriptedShard",
    "check_object_store",
    "make_records",
]

#: Where `crash_points.VARIABLE` can kill a process, in the order of the protocol.
CRASH_POINTS = (
    "before-plan",
    "after-plan",
    "after-file",
    "after-files",
    "after-done",
    "temporary-written",
    "linked",
)
