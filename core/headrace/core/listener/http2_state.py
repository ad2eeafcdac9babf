"""The HTTP/2 state machine of h2 as a server here uses it: its settings, and two corrections."""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.events import Event
from h2.settings import SettingCodes, Settings

from headrace.core.limits import KIB, MIB

# KCL keeps one stream open for each shard it subscribes to, all over one connection.
MAX_STREAMS = 1_000
STREAM_WINDOW_BYTES = 1 * MIB
CONNECTION_WINDOW_BYTES = 16 * MIB
MAX_FRAME_BYTES = 256 * KIB  # each frame costs the same: let large bodies come in few
MAX_HEADERS_BYTES = 64 * KIB
_DEFAULT_WINDOW_BYTES = 65_535  # RFC 9113 6.9.2


class _State(H2ConnectionStateMachine):
    """For h2 a GOAWAY, sent or received, ends the connection; for HTTP/2 only new streams end.

    Node's client, the JavaScript SDK's, sends one while it waits for the answer.
    """

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        events: list[Event] = super().process_input(input_)
        if input_ in (ConnectionInputs.SEND_GOAWAY, ConnectionInputs.RECV_GOAWAY):
            self.state = ConnectionState.SERVER_OPEN
        return events


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 4_096  # remembered by number, for late frames; h2 would keep 65,536

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.state_machine = _State()

    def clear_outbound_data_buffer(self) -> None:
        """h2 forgets what it had to say when a GOAWAY comes; the peer still waits for it."""


def server_connection() -> H2Connection:
    """A connection at its beginning; its settings are there to be sent."""
    conn = _Connection(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            # the headers are ours, and in lower case
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    conn.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS_BYTES,
        },
    )
    conn.max_inbound_frame_size = MAX_FRAME_BYTES
    conn.decoder.max_header_list_size = MAX_HEADERS_BYTES
    conn.initiate_connection()
    conn.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
    return conn
