"""On whose behalf an operation runs: streams are named within an account and a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.core.limits import DEFAULT_ACCOUNT, DEFAULT_REGION


class Caller(Protocol):
    """What the operations need of whoever calls."""

    @property
    def account(self) -> str: ...
    @property
    def region(self) -> str: ...


@dataclass(frozen=True, slots=True)
class LocalCaller:
    """The process itself, for what it does at start."""

    account: str = DEFAULT_ACCOUNT
    region: str = DEFAULT_REGION
