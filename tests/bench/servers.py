"""The servers that benchmarks start: ours, and the peer if it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from headrace.core.testing.server_process import ServerProcess

PEER_SCRIPT = (
    "require('kinesalite')({path:process.argv[2],createStreamMs:5,deleteStreamMs:5,"
    "shardLimit:1000}).listen(+process.argv[1],'127.0.0.1',()=>console.log('ready'))"
)


class HeadraceServer:
    """`headrace serve` on a fresh folder."""

    name = "headrace"

    def __init__(self, folder: Path) -> None:
        self._server = ServerProcess(folder / "stream")

    def start(self) -> int:
        self._server.start()
        return int(self._server.endpoint.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self._server.pid

    def stop(self) -> None:
        self._server.kill()


class PeerServer:
    """kinesalite with LevelDB on disk."""

    name = "kinesalite"

    def __init__(self, folder: Path, modules: Path) -> None:
        self._folder, self._modules = folder, modules

    def start(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        self._process = subprocess.Popen(
            ["node", "-e", PEER_SCRIPT, str(port), str(self._folder / "peer")],
            env={**os.environ, "NODE_PATH": str(self._modules)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        if b"ready" not in self._process.stdout.readline():
            raise RuntimeError("kinesalite did not start")
        return port

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


Server = HeadraceServer | PeerServer


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def peer_modules(given: str | None) -> Path | None:
    if shutil.which("node") is None:
        return None
    candidates = [given, *os.environ.get("NODE_PATH", "").split(os.pathsep), "node_modules"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "kinesalite").is_dir():
            return Path(candidate).absolute()
    return None
