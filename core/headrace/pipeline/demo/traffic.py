"""Visitors of the demo's web server: real HTTP requests at a steady rate, each with an id."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp

#: Where a request's id is in its log line and in its row.
REQUEST_ID = re.compile(r"[?&]rid=([0-9a-z]+)")

_CONNECTIONS = 16
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 Safari/605.1.15",
    "curl/8.9.1",
    "miller-bot/2.1 (+http://example.com/bot)",
)
_PATHS = (
    ("/", 30),
    ("/items/{n}", 52),
    ("/orders", 6),
    ("/old", 3),
    ("/gone/{n}", 6),
    ("/report", 3),
)


class Traffic:
    """Sends requests for some seconds. `answered` counts the statuses as the visitors saw them."""

    def __init__(self, url: str, *, requests_per_second: int, seconds: float, seed: int) -> None:
        self._url = url
        self._rate = requests_per_second
        self._seconds = seconds
        self._random = random.Random(seed)
        self._taken = 0
        self.total = round(requests_per_second * seconds)
        self.answered: Counter[int] = Counter()

    async def run(self, on_answer: Callable[[int], None]) -> None:
        """Send all requests; `on_answer` hears how many were answered so far.

        A server that cannot keep the rate is given the time it needs.

        Raises:
            aiohttp.ClientError: the server went away.
        """
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        began = time.monotonic()
        async with aiohttp.ClientSession(self._url, connector=connector) as session:
            visitors = [self._visit(session, began, on_answer) for _ in range(_CONNECTIONS)]
            await asyncio.gather(*visitors)

    async def _visit(
        self, session: aiohttp.ClientSession, began: float, on_answer: Callable[[int], None]
    ) -> None:
        while self._taken < self.total:
            number = self._taken
            self._taken += 1
            early = began + number / self._rate - time.monotonic()
            if early > 0:
                await asyncio.sleep(early)
            template = self._random.choices(*zip(*_PATHS, strict=True))[0]
            path = template.format(n=self._random.randrange(400))
            async with session.request(
                "POST" if path == "/orders" else "GET",
                f"{path}?rid={number:08d}",
                headers={"user-agent": self._random.choice(_AGENTS)},
                allow_redirects=False,
            ) as response:
                await response.read()
            self.answered[response.status] += 1
            on_answer(self.answered.total())


def rotate(folder: Path, name: str = "access.log") -> int:
    """Rotate as logrotate does: `access.log` becomes `.1`, `.1` becomes `.2`; nothing is removed.

    Returns:
        How many rotated files there are now.
    """
    count = len(list(folder.glob(f"{name}.*")))
    for number in range(count, 0, -1):
        (folder / f"{name}.{number}").rename(folder / f"{name}.{number + 1}")
    (folder / name).rename(folder / f"{name}.1")
    return count + 1
