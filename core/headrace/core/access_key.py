"""Access keys: a secret, and the account whose streams it opens."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from headrace.core.limits import DEFAULT_ACCOUNT

ACCOUNT_EXPECTED = 'an account id of twelve digits, in quotes, such as "111122223333"'

_ACCOUNT = re.compile(r"[0-9]{12}")


def is_account(text: str) -> bool:
    """Whether it has the form of an account id: twelve digits."""
    return _ACCOUNT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What belongs to an access key id. `account` is twelve digits. Raises ValueError if not."""

    secret: str = field(repr=False)
    account: str = DEFAULT_ACCOUNT

    def __post_init__(self) -> None:
        if not is_account(self.account):
            raise ValueError(ACCOUNT_EXPECTED)
