"""The compiled twins answer as the Python functions do, and Headrace works without them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.core import speedups
from headrace.core.log.rendering import are_plain, join_objects
from headrace.core.model.blobs import decoded_sizes
from headrace.core.model.sequence import STEP, count_up, run
from headrace.core.service.routing import by_route, deal

ROOT = Path(__file__).parents[2]
SOURCE = "core/headrace/core/_speedups.c"

compiled_only = pytest.mark.skipif(
    not speedups.IS_COMPILED and "CI" not in os.environ,
    reason="not built: there was no C compiler when Headrace was installed",
)


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return speedups.PLAIN[function.__name__]


def test_the_extension_is_built_where_it_must_be() -> None:
    """In CI there is a compiler: without the twins, no test of them would mean anything."""
    if "CI" in os.environ:
        assert speedups.IS_COMPILED


@compiled_only
def test_every_marked_function_has_a_twin() -> None:
    from headrace.core import _speedups

    twins = {name for name in vars(_speedups) if not name.startswith("_")}
    assert twins == set(speedups.PLAIN)
    for function in (are_plain, by_route, count_up, deal, decoded_sizes, join_objects):
        assert function is getattr(_speedups, function.__name__)


BASE64 = st.binary(max_size=70).map(lambda data: base64.b64encode(data).decode())
NEARLY_BASE64 = st.text("AQgwEIZaz09+/=-_ \n\x7f\x80é", max_size=12)
# each place of a text is looked at, in whatever pieces the compiled loop goes
SPOILT = st.builds(
    lambda text, at, wrong: text[: at % (len(text) + 1)] + wrong + text[at % (len(text) + 1) + 1 :],
    st.binary(min_size=1, max_size=200).map(lambda data: base64.b64encode(data).decode()),
    st.integers(0, 300),
    st.characters(codec="utf-8"),
)


@compiled_only
@given(st.lists(BASE64 | NEARLY_BASE64 | SPOILT, max_size=5))
@example(["===="])
@example(["A==="])
@example(["AA=A"])
@example(["AB=="])
@example(["AAB="])
@example([""])
@example(["AAA\udc80"])
def test_sizes_of_base64(texts: list[str]) -> None:
    assert decoded_sizes(texts) == plain(decoded_sizes)(texts)
    assert decoded_sizes(tuple(texts)) == decoded_sizes(texts)


@compiled_only
@pytest.mark.parametrize("wrong", [c for c in map(chr, range(256)) if not c.isalnum()])
def test_every_character_that_is_not_of_the_alphabet(wrong: str) -> None:
    for length in (4, 16, 32, 36, 132):
        for at in range(length):
            text = "A" * at + wrong + "A" * (length - at - 1)
            assert decoded_sizes([text]) == plain(decoded_sizes)([text]), (length, at)


@compiled_only
@given(st.integers(10**55, 10**56), st.integers(1, 500))
@example(10**55, 500)
@example(10**55 + 10**30 - STEP, 1)
@example(10**55 + 10**30 - STEP, 2)
@example(10**55 + 10**30 - STEP - 1, 2)
@example(10**55 + 10**29 - 1, 3)
@example(10**55 + 10**15 - 1, 3)
def test_sequence_numbers(first: int, count: int) -> None:
    assert run(first, count) == [str(number) for number in range(first, first + count * STEP, STEP)]


@compiled_only
@given(st.lists(st.text(max_size=5) | st.text('ab"\\\x7f\x1f é', max_size=20), max_size=5))
@example(["\udc80"])
@example(["a" * 31 + '"'])
@example(["a" * 40 + "\\" + "a" * 40])
def test_plain_keys(keys: list[str]) -> None:
    assert are_plain(keys) is plain(are_plain)(keys)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@compiled_only
@given(
    st.tuples(TEXT, TEXT, TEXT, TEXT),
    st.lists(st.tuples(BASE64, TEXT, st.just("4" * 56)), min_size=1, max_size=8),
    st.integers(0, 10**6),
)
def test_objects(
    around: tuple[str, str, str, str], records: list[tuple[str, str, str]], start: int
) -> None:
    around = ("h", around[1], around[2], around[3])
    data, keys, numbers = ([record[i] for record in records] for i in range(3))
    if not "".join(around).isascii():
        return  # what stands around is ours, and the Python one counts on it
    joined = join_objects(around, data, keys, numbers, start)
    assert joined == plain(join_objects)(around, data, keys, numbers, start)


@compiled_only
@given(st.lists(st.integers(0, 5) | st.integers(0, 2**70), max_size=40))
def test_groups_and_what_they_are_dealt(routes: list[int]) -> None:
    groups = by_route(routes)
    assert list(groups.items()) == list(plain(by_route)(routes).items())
    hands = [[f"{route}:{i}" for i in indexes] for route, indexes in groups.items()]
    dealt = deal(groups, hands, len(routes))
    assert dealt == [f"{route}:{i}" for i, route in enumerate(routes)]
    assert dealt == plain(deal)(groups, hands, len(routes))


@compiled_only
@pytest.mark.parametrize(
    "call",
    [
        lambda: decoded_sizes(7),  # type: ignore[arg-type]
        lambda: are_plain([7]),  # type: ignore[list-item]
        lambda: by_route([[]]),  # type: ignore[list-item]
        lambda: count_up("1", 10**15, 0, 1),
        lambda: count_up("1", -1, 0, 1),
        lambda: count_up("1", 10**30, 0, 1),
        lambda: count_up("1", 0, 0, -1),
        lambda: count_up("1", 10**15 - 1, 10**15 - 1, 2),
        lambda: count_up("é", 0, 0, 1),
        lambda: join_objects(("h", "k", "n", "e"), [], [], [], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b", "c"], ["1"], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], [], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], ["1"], -1),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], ["b"], ["1"], 2**32),
        lambda: join_objects(("h", "k", "n", "e"), ["\udc80"], ["b"], ["1"], 0),
        lambda: join_objects(("h", "k", "n", "e"), ["a"], [None], ["1"], 0),  # type: ignore[list-item]
        lambda: deal({0: [0]}, [], 1),
        lambda: deal({0: [0]}, [["a", "b"]], 1),
        lambda: deal({0: [1]}, [["a"]], 1),
        lambda: deal({0: [-1]}, [["a"]], 1),
        lambda: deal({0: [0, 0]}, [["a", "b"]], 2),
        lambda: deal({0: [0]}, [["a"]], 2),
        lambda: deal({0: ["x"]}, [["a"]], 1),  # type: ignore[list-item]
        lambda: deal({}, [], -1),
    ],
)
def test_wrong_arguments_are_errors_and_no_more(call: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        call()


@compiled_only
def test_ends_are_those_of_an_array() -> None:
    objects, ends = join_objects(("<", "|", ":", ">"), ["aa", "b"], ["k", ""], ["1", "2"], 10)
    assert objects == b"<aa|k:1>,<b:2>"
    assert array("I", ends).tolist() == [18, 24]


def test_without_them_everything_works_the_same() -> None:
    """The tests of what they stand in for, once more in Python."""
    tests = [
        "tests/core/log/test_rendering.py",
        "tests/core/model",
        "tests/core/test_routing.py",
        "tests/core/api/test_put_records.py",
        "tests/core/api/test_producer_headers.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "HEADRACE_SPEEDUPS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Hook:
    """`hatch_build` run as hatchling runs it, on a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.built = folder / SOURCE.replace(".c", sysconfig.get_config_var("EXT_SUFFIX"))
        self.built.parent.mkdir(parents=True)
        shutil.copy(ROOT / SOURCE, folder / SOURCE)

    def run(self, **env: str) -> dict[str, Any]:
        code = (
            "import json, hatch_build; from hatchling.bridge.app import Application; "
            f"hook = hatch_build.CustomBuildHook({str(self.root)!r}, {{}}, None, None, "
            "'.', 'wheel', Application()); data = {'force_include': {}}; "
            "hook.initialize('standard', data); print(json.dumps(data))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        self.said = done.stderr
        *_, last = done.stdout.splitlines()
        found: dict[str, Any] = json.loads(last)
        return found


@compiled_only
def test_the_wheel_has_it_if_there_is_a_compiler(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    data = hook.run()
    assert data["force_include"] == {str(hook.built): f"headrace/core/{hook.built.name}"}
    assert data["infer_tag"] and not data["pure_python"]
    assert hook.built.exists()


def test_the_wheel_is_put_together_without_a_compiler(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    hook.built.write_bytes(b"of an earlier source")
    assert hook.run(PATH=str(tmp_path)) == {"force_include": {}}
    assert not hook.built.exists()
    assert "without the compiled speedups" in hook.said


def test_the_wheel_is_put_together_if_the_source_does_not_compile(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    (tmp_path / SOURCE).write_text("this is no C")
    assert hook.run() == {"force_include": {}}
    assert "without the compiled speedups" in hook.said
