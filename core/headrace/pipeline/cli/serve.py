"""`headrace serve`: the stream alone, without a pipeline around it.

Reads its arguments with argparse and imports nothing it does not need: a server that is started
by a test or by systemd should listen at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.core.access_key import AccessKey
from headrace.core.errors import ConfigError, HeadraceError
from headrace.core.limits import DEFAULT_ACCOUNT, MAX_SCALED_SHARDS

if TYPE_CHECKING:
    from headrace.core.server import ServerConfig

SERVE_HELP = "Serve the stream alone: the Kinesis API on a port, data in a folder."

_EPILOG = (
    "Prints one line when it is ready: headrace: listening on http://HOST:PORT (https with --tls). "
    "SIGTERM and SIGINT end it. Without keys it answers anybody who can reach it, so it refuses "
    "an address beyond this machine then. Exit codes: 0 done, 1 failed, 2 bad usage."
)


def serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace serve", description=SERVE_HELP, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=_port, default=4567, help="port; 0 takes a free one (%(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/stream"), help="folder of the data (%(default)s)"
    )
    parser.add_argument(
        "--limits",
        choices=("off", "aws"),
        default="off",
        help="aws: the limits of the service on throughput, calls and streams; off: the "
        "hardware's (%(default)s)",
    )
    parser.add_argument(
        "--on-demand-max-shards",
        type=_shard_count,
        metavar="COUNT",
        help="how many shards traffic alone can give an on-demand stream (200 with --limits aws; "
        "32 with --limits off, where a shard throttles nothing and more of them only let more "
        "readers work side by side)",
    )
    parser.add_argument(
        "--state-delay-ms",
        type=_milliseconds,
        default=0,
        metavar="MS",
        help="how long streams and consumers are CREATING, UPDATING and DELETING, for those who "
        "test their waiting (%(default)s)",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="file with one ACCESS_KEY_ID:SECRET_ACCESS_KEY a line, or, for an account other than "
        "123456789012, ACCESS_KEY_ID@ACCOUNT:SECRET_ACCESS_KEY; HEADRACE_KEYS holds the same, "
        "separated by commas",
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        type=_origin,
        default=[],
        metavar="ORIGIN",
        help="origin whose web pages may use the server, such as https://app.example.com, or * "
        "for all; may be given again (with keys *, without them pages of this machine only)",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="serve over TLS; without a certificate of yours, with one made at the first start "
        "(tls/certificate.pem in the folder of the data, for clients to trust)",
    )
    parser.add_argument(
        "--certificate", type=Path, metavar="FILE", help="PEM, the chain below it; with --tls"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM, the certificate's key")
    return parser


def serve_main(arguments: Sequence[str]) -> int:
    """Serve until a signal. Returns the exit code."""
    parsed = serve_parser().parse_args(arguments)  # ends with code 2 on bad usage
    try:
        config = _config(parsed, os.environ)
        from headrace.core.serve import serve

        return serve(config)
    except ConfigError as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return 2
    except (HeadraceError, OSError) as error:
        print(f"headrace: error: {error}", file=sys.stderr)
        return 1


def _config(parsed: argparse.Namespace, environment: Mapping[str, str]) -> ServerConfig:
    from headrace.core.listener.tls import TlsConfig
    from headrace.core.server import ServerConfig

    if not parsed.tls and (parsed.certificate or parsed.key):
        raise ConfigError("--certificate and --key are for --tls", hint="add --tls")
    return ServerConfig(
        host=parsed.host,
        port=parsed.port,
        data=parsed.data,
        access_keys=read_keys(parsed.keys, environment),
        cors_origins=parsed.cors_origin,
        limits=parsed.limits,
        state_delay_ms=parsed.state_delay_ms,
        on_demand_max_shards=parsed.on_demand_max_shards,
        tls=TlsConfig(certificate=parsed.certificate, key=parsed.key) if parsed.tls else None,
    )


def read_keys(path: Path | None, environment: Mapping[str, str]) -> dict[str, AccessKey]:
    """Access keys by id, from a file, or from HEADRACE_KEYS.

    Raises:
        ConfigError: a line is not `ID:SECRET` or `ID@ACCOUNT:SECRET`, or names an id again; the
            message names the line, not its text.
    """
    if path is None:
        lines, name = environment.get("HEADRACE_KEYS", "").split(","), "HEADRACE_KEYS"
    else:
        try:
            lines, name = path.read_text(encoding="utf-8-sig").splitlines(), str(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not text in UTF-8") from None
    keys: dict[str, AccessKey] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        named, colon, secret = text.partition(":")
        access_key_id, at, account = named.partition("@")
        if not (colon and access_key_id and secret):
            raise ConfigError(
                f"{name}:{number}: expected ACCESS_KEY_ID:SECRET_ACCESS_KEY, or "
                "ACCESS_KEY_ID@ACCOUNT:SECRET_ACCESS_KEY"
            )
        if access_key_id in keys:
            raise ConfigError(f"{name}:{number}: this access key id stands further up already")
        try:
            keys[access_key_id] = AccessKey(secret, account if at else DEFAULT_ACCOUNT)
        except ValueError:
            raise ConfigError(
                f"{name}:{number}: expected an account id of twelve digits between @ and the colon"
            ) from None
    if not keys and (path is not None or environment.get("HEADRACE_KEYS")):
        raise ConfigError(
            f"{name} has no access key in it",
            hint="without keys a server answers anybody; leave it out to have it so",
        )
    return keys


def _origin(text: str) -> str:
    from headrace.core.wire.cors import check_origin

    try:
        return check_origin(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {error}") from None


def _milliseconds(text: str) -> int:
    if not text.isdigit() or int(text) > 3_600_000:
        raise argparse.ArgumentTypeError(f"a delay is 0 to 3600000 milliseconds, not {text}")
    return int(text)


def _shard_count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MAX_SCALED_SHARDS:
        raise argparse.ArgumentTypeError(f"shards are 1 to {MAX_SCALED_SHARDS}, not {text}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {text}")
    return int(text)
