"""What supervisor and part processes tell each other, over a socket only the two of them have.

JSON, a message a line. Down: the start packet (first line), then at most one `stop`. Up: `health`,
about once a second. When the socket closes, the other side is gone: that is how a part learns of
a supervisor that was killed, and the reason secrets travel here and not on a command line.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headrace.core.part import Health, StreamTarget

STOP = b'{"stop":true}\n'
HEALTH_PERIOD_MS = 1000


class ControlSocket:
    """A part's end of the socket, with blocking calls, for use from threads.

    Not a buffered file: a daemon thread that waits in one would hold its lock at exit.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def read_line(self) -> bytes:
        """The next line without its newline; empty when the supervisor is gone."""
        while b"\n" not in self._rest:
            try:
                data = self._connection.recv(65536)
            except OSError:
                return b""
            if not data:
                return b""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def send(self, message: bytes) -> None:
        """Send all of it. Raises OSError when the supervisor is gone."""
        self._connection.sendall(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPacket:
    """Everything a part's process needs to begin.

    `reference` is the part's class (`module:Class`), `values` its section as the YAML gave it.
    """

    section: str
    reference: str
    values: Any
    data: Path
    base: Path
    target: StreamTarget

    def encode(self) -> bytes:
        fields = asdict(self)
        fields.update(data=str(self.data), base=str(self.base))
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> StartPacket:
        fields = json.loads(line)
        fields.update(
            data=Path(fields["data"]),
            base=Path(fields["base"]),
            target=StreamTarget(**fields["target"]),
        )
        return cls(**fields)


def encode_health(health: Health) -> bytes:
    fields = {"ok": health.ok, "figures": health.figures, "problems": health.problems}
    return json.dumps(fields, default=str).encode() + b"\n"


def decode_health(line: bytes) -> Health:
    fields = json.loads(line)
    return Health(ok=fields["ok"], figures=fields["figures"], problems=tuple(fields["problems"]))
