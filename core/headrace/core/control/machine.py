"""The whole control state as one deterministic state machine.

`apply(state, command)` is all there is: the same commands in the same order lead to the same
state, on any machine, at any time. No clock and no chance in here.
"""

from __future__ import annotations

import msgspec

from headrace.core.control.accounts import AccountCommand, AccountsState, apply_account_command
from headrace.core.control.consumers import ConsumerCommand, apply_consumer_command
from headrace.core.control.lease_state import LeasesState
from headrace.core.control.leases import LeaseCommand, apply_lease_command, forget_stream
from headrace.core.control.settings import SettingCommand, apply_setting_command
from headrace.core.control.stream_state import StreamsState
from headrace.core.control.streams import RemoveStream, StreamCommand, apply_stream_command

Command = StreamCommand | SettingCommand | ConsumerCommand | AccountCommand | LeaseCommand


class ControlState(msgspec.Struct):
    """Everything that is not records."""

    streams: StreamsState = msgspec.field(default_factory=StreamsState)
    leases: LeasesState = msgspec.field(default_factory=LeasesState)
    accounts: AccountsState = msgspec.field(default_factory=AccountsState)


def apply(state: ControlState, command: Command) -> object:
    """Apply a command; returns what its own module says. Raises ServiceError when refused."""
    if isinstance(command, StreamCommand):
        stream = apply_stream_command(state.streams, command)
        if isinstance(command, RemoveStream) and command.with_leases:
            forget_stream(state.leases, stream, spares_others=command.spares_others)
        return stream
    if isinstance(command, SettingCommand):
        return apply_setting_command(state.streams, command)
    if isinstance(command, ConsumerCommand):
        return apply_consumer_command(state.streams, command)
    if isinstance(command, AccountCommand):
        apply_account_command(state.accounts, command)
        return None
    return apply_lease_command(state.leases, command)
