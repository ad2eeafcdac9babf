"""Other people's Java programs as child processes: their jars from Maven, once, into the user's
cache; the sources of a driver each, of which one has a `main`, compiled at every start.

Needs java 17 or newer and maven; without them the tests that import this are skipped. With them,
jars that cannot be had are a skip here and a failure in CI.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

DRIVERS = Path(__file__).parent / "interop"
_RESOLVE_TIMEOUT_S = 600
_NICE = ["nice", "-n", "15"]  # the server is what is tested: it comes first
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
}

needs_java = pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")), reason="java and maven are not installed"
)


def class_path(name: str) -> str:
    """The class path of tests/interop/NAME/pom.xml, or what HEADRACE_NAME_CLASS_PATH says it is."""
    given = os.environ.get(f"HEADRACE_{name.upper()}_CLASS_PATH")
    if given:
        return given
    pom = DRIVERS / name / "pom.xml"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    folder = cache / "headrace-tests" / f"maven-{name}-{digest}"
    found = folder / "classpath"
    if not found.exists() or not all(Path(jar).exists() for jar in _jars(found)):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(pom, folder)
        command = ["mvn", "--quiet", "--batch-mode", "dependency:build-classpath"]
        try:
            subprocess.run(
                [*command, f"-Dmdep.outputFile={found}"],
                cwd=folder, check=True, timeout=_RESOLVE_TIMEOUT_S, capture_output=True,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(f"the jars of {name} could not be had: {error}")
    return found.read_text().strip()


def _jars(class_path_file: Path) -> list[str]:
    return class_path_file.read_text().strip().split(os.pathsep)


def trust_store(certificate: Path) -> str:
    """A Java trust store of a PEM certificate alone, beside it; the password is `changeit`."""
    store = certificate.with_suffix(".p12")
    subprocess.run(
        [
            "keytool", "-importcert", "-noprompt", "-alias", "headrace", "-file", str(certificate),
            "-keystore", str(store), "-storetype", "PKCS12", "-storepass", "changeit",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(store)


class JavaProcess:
    """One driver, running. Its lines `key=value` on standard output are what it reports.

    `jars` names the folder of its pom.xml if that is not its own; `certificate` is trusted by it,
    instead of those Java brings; `heap` is what -Xmx takes.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        jars: str | None = None,
        certificate: Path | None = None,
        heap: str = "384m",
    ) -> None:
        sources = list((DRIVERS / name).glob("*.java"))
        (driver,) = (source for source in sources if " void main(" in source.read_text())
        options = [f"-Xmx{heap}", "-XX:ActiveProcessorCount=1", "-XX:+UseSerialGC"]
        if certificate is not None:
            options += [f"-Djavax.net.ssl.trustStore={trust_store(certificate)}"]
            options += ["-Djavax.net.ssl.trustStorePassword=changeit"]
        jars_path = class_path(jars or name)
        classes = log.with_suffix(".classes")
        subprocess.run(
            [
                *_NICE, "javac", "-nowarn", "-proc:none", "-d", str(classes), "-cp", jars_path,
                *map(str, sources),
            ],
            check=True,
        )  # fmt: skip
        class_paths = os.pathsep.join([str(classes), jars_path])
        command = [*_NICE, "java", *options, "-cp", class_paths, driver.stem, *arguments]
        self.log = log
        self._output = log.with_suffix(".out")
        with self._output.open("w") as output, log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=errors, env={**os.environ, **_CREDENTIALS},
                start_new_session=True,
            )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """What it has reported so far. The last line may still be in the making: it is left out."""
        return self._output.read_text().split("\n")[:-1]

    @property
    def found(self) -> dict[str, str]:
        """The report as a dict; of a key that came twice the last value."""
        return dict(line.split("=", 1) for line in self.lines if "=" in line)

    def until(self, is_so: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait until it is so. Fails with the driver's log when it ends before, or in time."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            code = self._process.poll()
            assert code is None or is_so(), f"ended with {code}\n{self._tail()}"
            assert time.monotonic() < deadline, f"not within {timeout_s} s\n{self._tail()}"
            time.sleep(0.1)

    def finish(self, timeout_s: float = 120) -> dict[str, str]:
        """Wait for its end, which must be a good one; returns the report."""
        code = self._process.wait(timeout_s)
        assert code == 0, f"ended with {code}\n{self._tail()}"
        return self.found

    def stop(self, timeout_s: float = 60) -> None:
        """SIGTERM: its shutdown hooks run."""
        self._process.terminate()
        self._process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL, to it and whatever it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _tail(self) -> str:
        return "\n".join(["...", *self.lines[-20:], self.log.read_text()[-6000:]])

    def __enter__(self) -> JavaProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
