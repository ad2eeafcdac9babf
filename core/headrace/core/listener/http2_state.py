"""The HTTP/2 state machine of h2 as a server here uses it: its settings, and two corrections."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.events import Event
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, SettingsFrame

from headrace.core.limits import KIB, MIB

# KCL keeps one stream open for each shard it subscribes to, all over one connection.
MAX_STREAMS = 1_000
STREAM_WINDOW_BYTES = 1 * MIB
CONNECTION_WINDOW_BYTES = 16 * MIB
MAX_FRAME_BYTES = 256 * KIB  # each frame costs the same: let large bodies come in few
MAX_HEADERS_BYTES = 64 * KIB
FRAMES_AT_ONCE = 128  # a read may bring ten thousand of them, which take a second
MAX_SETTINGS = 100  # in the time a connection looks at itself; clients send one or two
_FRAME_HEAD_BYTES = 9
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


class _Frames(FrameBuffer):
    """Frames out of bytes. h2 keeps 16 MiB of a frame, and 64 frames of headers, before it looks
    at their size; and every SETTINGS makes it go through all streams.
    """

    def __init__(self) -> None:
        super().__init__(server=True)
        self.settings_count = 0  # since somebody set it back
        self.allowance = 0  # frames that are still taken out at this call of receive_data

    def __next__(self) -> Frame:
        if not self.allowance:
            raise StopIteration
        if len(self._data) >= _FRAME_HEAD_BYTES:
            declared_bytes = int.from_bytes(self._data[:3], "big")
            if declared_bytes > MAX_FRAME_BYTES:
                raise FrameTooLargeError(f"a frame of {declared_bytes} bytes")
        frame = super().__next__()
        self.allowance -= 1
        if isinstance(frame, SettingsFrame):
            self.settings_count += 1
            if self.settings_count > MAX_SETTINGS:
                raise ProtocolError("too many SETTINGS")
        return frame

    def _update_header_buffer(self, frame: Frame | None) -> Frame | None:
        whole = super()._update_header_buffer(frame)
        if sum(len(part.data) for part in self._headers_buffer) > MAX_HEADERS_BYTES:
            raise ProtocolError("too many headers")
        return whole


class ServerConnection(H2Connection):
    MAX_CLOSED_STREAMS = 4_096  # remembered by number, for late frames; h2 would keep 65,536

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.state_machine = _State()
        self.incoming_buffer = self.frames = _Frames()

    def receive_data(self, data: Any) -> list[Event]:
        """As h2's, but of at most `FRAMES_AT_ONCE` frames; `has_more` says if some are left."""
        self.frames.allowance = FRAMES_AT_ONCE
        return super().receive_data(data)

    @property
    def has_more(self) -> bool:
        """Bytes are left that may be whole frames: `receive_data(b"")` goes on."""
        return not self.frames.allowance

    def clear_outbound_data_buffer(self) -> None:
        """h2 forgets what it had to say when a GOAWAY comes; the peer still waits for it."""


def server_connection() -> ServerConnection:
    """A connection at its beginning; its settings are there to be sent."""
    conn = ServerConnection(
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
