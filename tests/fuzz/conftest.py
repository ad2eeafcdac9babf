"""Servers that are looked at before and after."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator

import pytest

from fuzz.impatient import Alarms, Impatient, impatient_server
from fuzz.vitals import Watched
from headrace.core.testing.server_process import ServerProcess


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server of the module's tests, with records in it."""
    with ServerProcess(tmp_path_factory.mktemp("fuzz") / "stream") as process:
        found = Watched(process)
        yield found
        found.is_well()


@pytest.fixture
def chance() -> random.Random:
    """Seeded; the seed is shown when the test fails, and FUZZ_SEED sets it."""
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"FUZZ_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Impatient]:
    """A server that waits for nobody for long; nothing is left in it after the module's tests."""
    alarms = Alarms()
    logging.getLogger().addHandler(alarms)
    with impatient_server(tmp_path_factory.mktemp("impatient") / "stream") as found:
        yield found
        found.comes_to_rest()
    logging.getLogger().removeHandler(alarms)
    assert not alarms.records
