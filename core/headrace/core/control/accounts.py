"""Settings of an account in a region: command, state, and how one leads to the other.

The one setting is the commitment to a minimum of on-demand throughput. Nothing is billed here; it
unlocks warm throughput and 50 consumers a stream, as at AWS.
"""

from __future__ import annotations

import msgspec

from headrace.core.limits import COMMITMENT_MS


class CommitmentState(msgspec.Struct, kw_only=True):
    """A commitment that was made. It ends, if it was given notice, at `ends_ms`; Unix ms."""

    started_ms: int
    ends_ms: int | None = None

    @property
    def earliest_end_ms(self) -> int:
        return self.started_ms + COMMITMENT_MS

    def is_in_force(self, now_ms: int) -> bool:
        return self.ends_ms is None or now_ms < self.ends_ms


class AccountsState(msgspec.Struct):
    """Commitments by `account/region`; where there is none, none was ever made."""

    commitments: dict[str, CommitmentState] = {}


class SetCommitment(msgspec.Struct, kw_only=True, tag=True):
    """Make the commitment or give notice; again is once. It lasts for a day at least."""

    account: str
    region: str
    is_enabled: bool
    at_ms: int


AccountCommand = SetCommitment


def commitment_of(state: AccountsState, account: str, region: str) -> CommitmentState | None:
    """The last commitment of an account in a region, in force or not; None if there was none."""
    return state.commitments.get(f"{account}/{region}")


def apply_account_command(state: AccountsState, command: AccountCommand) -> None:
    """Apply the command. Never refused."""
    commitment = commitment_of(state, command.account, command.region)
    if command.is_enabled:
        if commitment is None or not commitment.is_in_force(command.at_ms):
            commitment = CommitmentState(started_ms=command.at_ms)
            state.commitments[f"{command.account}/{command.region}"] = commitment
        commitment.ends_ms = None
    elif commitment is not None and commitment.ends_ms is None:
        commitment.ends_ms = max(command.at_ms, commitment.earliest_end_ms)
