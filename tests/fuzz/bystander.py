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
        while True:
            began = time.monotonic()
            self._ask_once()
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if self._is_over.wait(0.005):
                return

    def _ask_once(self) -> None:
        reply = self._exchange.ask(usual_headers("Kinesis_20131202.ListStreams", JSON), b"{}")
        if reply is not None and reply.status == 200:
            self.count += 1

    def __enter__(self) -> Bystander:
        self._ask_once()  # a server's first request of the kind waits for the service model
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._exchange.close()
        assert self.count, "it was never answered"
