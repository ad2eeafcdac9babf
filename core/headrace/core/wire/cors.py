"""Which web pages may use the server.

A browser sends a page's requests to wherever the page says, also to the user's own machine. With
access keys the signature protects the streams and any page may ask, as at AWS. Without keys
whoever reaches the server has all of it, so then a page must come from this machine, or from an
origin that was named: all others are refused before anything is done.

| request of a browser                | without keys                                       |
|-------------------------------------|----------------------------------------------------|
| of a page elsewhere                 | refused by its Origin                              |
| of one whose host's name was turned | a POST is refused by its Origin, a GET, which has  |
| to point here (DNS rebinding)       | none then, by its Host                             |
| of a page without an origin         | refused: `null` is what any page can give a frame  |

Other programs send no Origin and are not asked for their Host when they call the API, so names
given to this machine by a container network or a hosts file work.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Collection

log = logging.getLogger("headrace.core")

ANY_ORIGIN = "*"
ORIGIN_EXPECTED = "an origin such as https://app.example.com, http://localhost:3000, or *"

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_MOST_LOGGED = 100  # origins named in the log; whoever sends them can send any number

Headers = list[tuple[bytes, bytes]]

_EXPOSED = (
    b"access-control-expose-headers",
    b"x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date",
)
_ANYONE: Headers = [(b"access-control-allow-origin", b"*"), _EXPOSED]


def check_origin(text: str) -> str:
    """The origin as browsers write it, or `*`. Raises ValueError on anything else."""
    if text == ANY_ORIGIN:
        return text
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ValueError(ORIGIN_EXPECTED)
    scheme, host, port = found.groups()
    usual = {"http": ":80", "https": ":443"}[scheme]
    return f"{scheme}://{host}{'' if port in (None, usual) else port}"


class Cors:
    """Takes origins and hosts, or does not. `origins` are as `check_origin` gives them."""

    def __init__(self, origins: Collection[str], *, has_keys: bool) -> None:
        self._origins = frozenset(origins) or frozenset([ANY_ORIGIN] if has_keys else [])
        self._takes_local = not has_keys
        self._named = {_host(origin) for origin in self._origins}
        self._logged: set[str] = set()

    def headers(self, origin: bytes) -> Headers | None:
        """What an answer to a page of that origin carries; None: it is to be refused."""
        if ANY_ORIGIN in self._origins:
            return _ANYONE
        text = origin.decode("latin-1")
        if text in self._origins or (self._takes_local and _is_local_origin(text)):
            return [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), _EXPOSED]
        if text not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(text)
            log.warning("refused a request of a web page: %s", self.refusal(origin))
        return None

    def refusal(self, origin: bytes) -> str:
        """Why a page of that origin is refused, and what to do about it."""
        return (
            f"Pages of {origin.decode('latin-1')[:200]!r} may not use this server. Name the origin "
            "with --cors-origin (cors_origins in a file) to let them."
        )

    def takes_host(self, host: bytes) -> bool:
        """Whether a GET for that Host header is answered."""
        if not self._takes_local or ANY_ORIGIN in self._origins:
            return True
        name = _host(f"http://{host.decode('latin-1').lower()}")
        # a name of one label, localhost for one, is nobody's to register
        return name is not None and (
            "." not in name.rstrip(".") or _address(name) is not None or name in self._named
        )


def _host(origin: str) -> str | None:
    """The host of an origin, without brackets; None when it is no origin."""
    found = _ORIGIN.fullmatch(origin)
    return found[2].strip("[]") if found else None


def _is_local_origin(origin: str) -> bool:
    """Whether a page is this machine's own: localhost, or a loopback address."""
    name = _host(origin)
    if name is None:
        return False
    address = _address(name)
    return name == "localhost" if address is None else address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
