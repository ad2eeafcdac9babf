"""`headrace check` on functions: by reading, never by importing."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.core.part import Finding
from headrace.triggers.config import TriggerConfig
from headrace.triggers.part import TriggersPart
from triggers_support import WriteFunction

GOOD = "def handler(event, context):\n    context.emit('alerts', b'', 'k')\n"


def check(
    base: Path, *, function: str = "functions/function.py:handler", stream: str = "access"
) -> list[Finding]:
    trigger = TriggerConfig.model_validate({"function": function, "stream": stream})
    return TriggersPart.check([trigger], base=base, streams=["access", "alerts"])


def test_nothing_to_say(tmp_path: Path, write_function: WriteFunction) -> None:
    write_function(GOOD)
    assert check(tmp_path) == []


def test_nothing_is_imported(tmp_path: Path, write_function: WriteFunction) -> None:
    write_function("raise SystemExit('imported')\n" + GOOD)
    assert check(tmp_path) == []


@pytest.mark.parametrize(
    "source",
    [
        "async def handler(event, context): ...",
        "def handler(*arguments): ...",
        "def handler(event, context=None): ...",
        "@decorated\ndef handler(record): ...",
        "handler = make()",
        "handler, other = make()",
        "handler: object = make()",
        "from elsewhere import handler",
        "from elsewhere import something as handler",
        "from elsewhere import *",
        "try:\n    import a\nexcept ImportError:\n    def handler(e, c): ...",
        "if fast:\n    from a import handler\nelse:\n    from b import handler",
        "class handler:\n    def __init__(self, event, context): ...",
    ],
)
def test_ways_to_have_a_handler(tmp_path: Path, write_function: WriteFunction, source: str) -> None:
    write_function(source)
    assert check(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("def handle(event, context): ...", "has no function 'handler'", "'handle'?"),
        ("def f():\n    def handler(e, c): ...", "has no function 'handler'", "'f'"),
        ("def handler(event): ...", "cannot be called with two arguments", "(event, context)"),
        ("def handler(a, b, c): ...", "cannot be called with two arguments", "(event, context)"),
        ("def handler(a, b, *, c): ...", "cannot be called with two arguments", "(event, context)"),
        ("def handler(event, context)", "is not Python", None),
        ("\0", "is not Python", None),
    ],
)
def test_errors(
    tmp_path: Path, write_function: WriteFunction, source: str, message: str, hint: str | None
) -> None:
    write_function(source)
    (finding,) = check(tmp_path)
    assert finding.loc == (0, "function")
    assert finding.is_error
    assert message in finding.message
    assert (hint or "") in (finding.hint or "")


def test_a_missing_file(tmp_path: Path) -> None:
    (finding,) = check(tmp_path, function="functions/none.py:handler")
    assert "No such file" in finding.message
    assert finding.hint == "the path starts from the folder of the YAML file"


def test_an_undeclared_stream(tmp_path: Path, write_function: WriteFunction) -> None:
    write_function(GOOD)
    (finding,) = check(tmp_path, stream="acces")
    assert (finding.loc, finding.is_error) == ((0, "stream"), True)
    assert finding.hint == "did you mean 'access'?"


@pytest.mark.parametrize(
    ("target", "message"),
    [("access", "the stream this trigger reads"), ("alarms", "is not declared")],
)
def test_emits_that_cannot_work_are_warned_of(
    tmp_path: Path, write_function: WriteFunction, target: str, message: str
) -> None:
    """Scenario 44, before anything runs."""
    write_function(GOOD.replace("alerts", target))
    (finding,) = check(tmp_path)
    assert not finding.is_error
    assert message in finding.message
    assert "line 2" in finding.message


def test_a_file_where_the_dead_letters_should_go(
    tmp_path: Path, write_function: WriteFunction
) -> None:
    write_function(GOOD)
    (tmp_path / "dead").write_text("")
    trigger = TriggerConfig.model_validate(
        {"function": "functions/function.py:handler", "stream": "access", "on_failure": "dead"}
    )
    (finding,) = TriggersPart.check([trigger], base=tmp_path, streams=None)
    assert (finding.loc, finding.is_error) == ((0, "on_failure"), True)
