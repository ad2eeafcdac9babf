"""The head of a plain request: what SDKs send, in the form that leaves nothing to interpret.

Not a parser of HTTP: it says of a few forms what they mean, and of all others that a parser is to
look at them. What it takes, a parser takes too, and understands the same; the tests hold it to
that. (A parser tells each header by itself, in Python: reading these ten lines that way costs as
much as answering a poll.)
"""

from __future__ import annotations

from headrace.core.speedups import compiled

Head = tuple[list[tuple[bytes, bytes]], int, int]

_REQUEST_LINE = b"POST / HTTP/1.1\r\n"
_LOWER_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_PRINTABLE = bytes(range(0x20, 0x7F))
_MAX_LENGTH_DIGITS = 9
# what changes where a message ends, or how the connection goes on
_NOT_PLAIN = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection"))


@compiled
def plain_head(data: bytes, /) -> Head | None:
    """Headers, where the body begins and how long it is; None where a parser must look.

    `data` is what was received. Plain is a `POST /` of HTTP/1.1 with one length, headers of
    printable ASCII on a line each, and none but `keep-alive` about the connection. Names come in
    lower case, values without the blanks before them; there are none behind.
    """
    if not data.startswith(_REQUEST_LINE):
        return None
    end = data.find(b"\r\n\r\n")
    if end < len(_REQUEST_LINE):
        return None
    headers: list[tuple[bytes, bytes]] = []
    length = -1
    for line in data[len(_REQUEST_LINE) : end].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        value = value.lstrip(b" ")
        if (
            not name
            or not colon
            or name.translate(None, _LOWER_TOKEN)
            or value.translate(None, _PRINTABLE)
            or value.endswith(b" ")
            or name in _NOT_PLAIN
            or (name == b"connection" and value.lower() != b"keep-alive")
        ):
            return None
        if name == b"content-length":
            if length >= 0 or not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
                return None
            length = int(value)
        headers.append((name, value))
    return None if length < 0 else (headers, end + 4, length)
