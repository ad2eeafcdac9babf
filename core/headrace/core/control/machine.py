"""The whole control state as one deterministic state machine.

`apply(state, command)` is all there is: the same commands in the same order lead to the same
state, on any machine, at any time. No clock and no chance in here.
"""

from __future__ import annotations

import msgspec

from headrace.core.control.leases import LeaseCommand, LeasesState, apply_lease_command
from headrace.core.control.stream_state import StreamsState
from headrace.core.control.streams import StreamCommand, apply_stream_command

Command = StreamCommand | LeaseCommand


class ControlState(msgspec.Struct):
    """Everything that is not records."""

    streams: StreamsState = msgspec.field(default_factory=StreamsState)
    leases: LeasesState = msgspec.field(default_factory=LeasesState)


def apply(state: ControlState, command: Command) -> object:
    """Apply a command; returns what its own module says. Raises ServiceError when refused."""
    if isinstance(command, StreamCommand):
        return apply_stream_command(state.streams, command)
    return apply_lease_command(state.leases, command)
