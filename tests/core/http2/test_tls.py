"""The certificate: made, kept, made again; given, and what can be wrong with a given one."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from headrace.core.client import StreamClient
from headrace.core.errors import ConfigError, EndpointUnreachable
from headrace.core.listener.tls import TlsConfig, server_tls
from headrace.core.part import PartContext, StreamTarget
from headrace.core.stream_part import StreamPart
from headrace.core.stream_section import StreamSection
from headrace.core.testing.server_process import ServerProcess
from http2_support import until


def names(path: Path) -> set[str]:
    extension = x509.load_pem_x509_certificate(path.read_bytes()).extensions
    found = extension.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def test_one_is_made_once(tmp_path: Path) -> None:
    made = server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1")
    assert made.is_new and made.certificate == tmp_path / "tls" / "certificate.pem"
    assert names(made.certificate) >= {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    parsed = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    left = parsed.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=3649) < left <= timedelta(days=3650)
    assert (tmp_path / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in (tmp_path / "tls").iterdir()) == ["certificate.pem", "key.pem"]

    before = made.certificate.read_bytes()
    again = server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1")
    assert not again.is_new and again.certificate.read_bytes() == before


def test_another_is_made_for_a_host_it_does_not_name(tmp_path: Path) -> None:
    server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1")
    other = server_tls(TlsConfig(), data=tmp_path, host="kinesis.example.com")
    assert other.is_new and "kinesis.example.com" in names(other.certificate)
    assert not server_tls(TlsConfig(), data=tmp_path, host="0.0.0.0").is_new
    assert "0.0.0.0" not in names(other.certificate)


@pytest.mark.parametrize("file", ["certificate.pem", "key.pem"])
@pytest.mark.parametrize("damage", ["absent", "empty", "garbage"])
def test_what_a_crash_or_a_hand_left_is_made_again(tmp_path: Path, file: str, damage: str) -> None:
    server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1")
    path = tmp_path / "tls" / file
    if damage == "absent":
        path.unlink()
    else:
        path.write_text("" if damage == "empty" else "-----BEGIN CERTIFICATE-----\nx")
    assert server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1").is_new
    assert not server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1").is_new


def test_an_expiring_one_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.core.listener.tls.YEARS", 0)
    server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1")
    assert server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1").is_new


@pytest.fixture
def pair(tmp_path: Path) -> TlsConfig:
    """A certificate of one's own, somewhere else than in the data."""
    made = server_tls(TlsConfig(), data=tmp_path / "given", host="127.0.0.1").certificate
    return TlsConfig(certificate=made, key=made.with_name("key.pem"))


def test_a_given_one_is_used_and_nothing_is_made(tmp_path: Path, pair: TlsConfig) -> None:
    used = server_tls(pair, data=tmp_path / "data", host="elsewhere")
    assert used.certificate == pair.certificate and not used.is_new
    assert not (tmp_path / "data").exists()


def test_what_is_wrong_with_a_given_one_is_said(tmp_path: Path, pair: TlsConfig) -> None:
    assert pair.certificate is not None and pair.key is not None
    other = server_tls(TlsConfig(), data=tmp_path / "other", host="::1").certificate
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for config, words in (
        (TlsConfig(certificate=pair.certificate), "go together"),
        (TlsConfig(certificate=tmp_path / "no", key=pair.key), "no cannot be read"),
        (TlsConfig(certificate=pair.certificate, key=tmp_path / "no"), "no cannot be read"),
        (TlsConfig(certificate=other, key=pair.key), "no certificate and its key"),
        (TlsConfig(certificate=pair.key, key=pair.key), "no certificate and its key"),
        (TlsConfig(certificate=pair.certificate, key=locked), "is encrypted"),
    ):
        with pytest.raises(ConfigError, match=words):
            server_tls(config, data=tmp_path / "data", host="127.0.0.1")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("in the way")
    with pytest.raises(ConfigError, match="tls cannot be written"):
        server_tls(TlsConfig(), data=tmp_path, host="127.0.0.1")


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.pipeline", "serve", "--port", "0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_serve_says_what_is_wrong_and_ends_with_2(tmp_path: Path) -> None:
    for arguments, words in (
        (("--certificate", "x.pem", "--key", "y.pem"), "add --tls"),
        (("--tls", "--certificate", "x.pem"), "go together"),
        (("--tls", "--certificate", "x.pem", "--key", "y.pem"), "x.pem cannot be read"),
    ):
        ran = serve("--data", str(tmp_path / "data"), *arguments)
        assert ran.returncode == 2 and words in ran.stderr, ran


async def test_serve_tells_of_the_certificate_once(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", arguments=("--tls",)) as server:
        assert server.endpoint.startswith("https://127.0.0.1:")
        async with StreamClient(server.target) as client:
            assert (await client.call("ListStreams", {}))["StreamNames"] == []
        server.stop()
        server.start()
        async with StreamClient(server.target) as client:
            await client.call("ListStreams", {})
        told = str(tmp_path / "data" / "tls" / "certificate.pem")
        assert server.log_text.count(told) == 1


async def test_only_the_right_certificate_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = server_tls(TlsConfig(), data=tmp_path / "other", host="127.0.0.1").certificate
    with ServerProcess(tmp_path / "data", arguments=("--tls",)) as server:
        for target in (
            StreamTarget(endpoint=server.endpoint),
            StreamTarget(endpoint=server.endpoint, certificate=str(other)),
            StreamTarget(endpoint=server.endpoint, certificate=str(tmp_path / "none.pem")),
        ):
            async with StreamClient(target) as client:
                with pytest.raises(EndpointUnreachable):
                    await client.call("ListStreams", {})
        monkeypatch.setenv("AWS_CA_BUNDLE", str(server.target.certificate))
        async with StreamClient(StreamTarget(endpoint=server.endpoint)) as client:
            await client.call("ListStreams", {})


def test_the_wrong_protocol_does_no_harm(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", arguments=("--tls",)) as server:
        port = int(server.endpoint.rsplit(":", 1)[1])
        for first in (b"POST / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(first)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        context = ssl.create_default_context(cafile=server.target.certificate)
        with (
            socket.create_connection(("127.0.0.1", port), 10) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as secure,
        ):
            assert secure.version() in ("TLSv1.2", "TLSv1.3")
        assert "Traceback" not in server.log_text


@pytest.mark.parametrize("tls", [True, {}, None])
def test_the_section_with_its_defaults(tmp_path: Path, tls: Any) -> None:
    section = StreamSection.model_validate({"tls": tls})
    target = section.target(data=tmp_path / "stream", base=tmp_path)
    assert target.endpoint == "https://127.0.0.1:4567"
    assert target.certificate == str(tmp_path / "stream" / "tls" / "certificate.pem")


def test_the_section_with_a_certificate_and_without_tls(tmp_path: Path) -> None:
    given = {"certificate": "c.pem", "key": "k.pem"}
    section = StreamSection.model_validate({"tls": given})
    assert section.target(data=tmp_path, base=tmp_path).certificate == str(tmp_path / "c.pem")
    plain = StreamSection.model_validate({"tls": False}).target()
    assert (plain.endpoint, plain.certificate) == ("http://127.0.0.1:4567", None)
    with pytest.raises(ValueError, match="go together"):
        StreamSection.model_validate({"tls": {"certificate": "c.pem"}})


async def test_the_part_serves_and_meets_itself_over_tls(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    section = StreamSection.model_validate(
        {"listen": f"127.0.0.1:{port}", "tls": True, "streams": {"web": None}}
    )
    target = section.target(data=tmp_path, base=tmp_path)
    part = StreamPart(section, PartContext(data=tmp_path, base=tmp_path, target=target))

    running = asyncio.create_task(part.run())
    await until(lambda: part.health().ok or running.done(), timeout_s=20)
    async with StreamClient(target) as client:
        assert (await client.call("ListStreams", {}))["StreamNames"] == ["web"]
    await part.stop()
    await running
