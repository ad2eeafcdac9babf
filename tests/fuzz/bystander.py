"""A client that goes on working beside what is done to the server."""

from __future__ import annotations

import threading
import time

from fuzz.exchange import Exchange, usual_headers
from fuzz.wire_form import JSON


class Bystander:
    """Asks one small thing after the other until its context ends; `longest_s` is how long it
    waited at most."""

    def __init__(self, endpoint: str) -> None:
        self.longest_s = 0.0
        self.count = 0
        self._exchange = Exchange(endpoint)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        headers = usual_headers("Kinesis_20131202.ListStreams", JSON)
        while True:
            began = time.monotonic()
            reply = self._exchange.ask(headers, b"{}")
            if reply is not None and reply.status == 200:
                self.count += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if self._is_over.wait(0.005):
                return

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._exchange.close()
        assert self.count, "it was never answered"
