"""The supervisor with real child processes: order, restarts, kills, locks."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from pipeline.support import TIMEOUT_S, RunningPipeline, is_alive, wait_for, wait_gone

Up = Callable[..., RunningPipeline]


def all_four(up: Up, **changes: str) -> RunningPipeline:
    scripts = {"agent": "", "triggers": "", "sinks": "", "stream": "", **changes}
    return up(**scripts)


def test_starts_the_stream_first_and_drains_in_order(up: Up) -> None:
    slow = "drain_ms: 150"
    running = all_four(up, stream="ready_after_ms: 300", agent=slow, triggers=slow, sinks=slow)
    running.wait_running()
    starts = running.journal.entries()
    first_of_others = next(i for i, entry in enumerate(starts) if entry[0] != "stream")
    assert ("stream", starts[0][1], "ready") in starts[:first_of_others]

    code, said = running.stop()

    assert code == 0, said
    assert running.journal.events("drained") == ["agent", "triggers", "sinks", "stream"]
    stops = [e for e in running.journal.entries() if e[2] in ("stop", "drained")]
    assert [section for section, _, _ in stops] == [
        part for part in ("agent", "triggers", "sinks", "stream") for _ in range(2)
    ], "a part was asked to stop before the one ahead of it had drained"


def test_log_lines_carry_the_name_of_the_part_and_no_colors(up: Up) -> None:
    running = up(agent="", stream="")
    running.wait_running()
    code, said = running.stop()
    assert code == 0
    assert "agent    | agent says hello" in said
    assert "stream   | stream says hello" in said
    assert "\x1b" not in said


def test_a_killed_part_is_started_again_and_the_others_are_left_alone(up: Up) -> None:
    running = all_four(up)
    running.wait_running()
    before = running.journal.pids()

    os.kill(before["sinks"], signal.SIGKILL)
    wait_for(lambda: running.journal.events("ready").count("sinks") == 2, "sinks are back")

    after = running.journal.pids()
    assert after["sinks"] != before["sinks"]
    assert {k: v for k, v in after.items() if k != "sinks"} == {
        k: v for k, v in before.items() if k != "sinks"
    }
    code, said = running.stop()
    assert code == 0
    assert "sinks was killed by SIGKILL" in said


def test_a_failing_part_is_started_again_with_growing_pauses_and_its_last_words(up: Up) -> None:
    running = up(agent="fail_after_ms: 10")
    wait_for(lambda: running.journal.events("ready").count("agent") >= 3, "third start")
    code, said = running.stop()
    assert code == 0
    assert "agent failed (exit code 1)" in said
    assert "starting it again in 0.5 s" in said
    assert "starting it again in 1.0 s" in said
    assert "headrace |     " in said and "the script says so" in said


def test_a_part_that_cannot_use_its_configuration_ends_the_pipeline(up: Up) -> None:
    running = up(stream="", sinks="fails_to_configure: true")
    code, said = running.finish()
    assert code == 2
    assert "sinks cannot use its configuration" in said
    assert "there is no such bucket" in said
    assert running.journal.events("drained") == ["stream"]


def test_a_stream_that_never_comes_up_ends_the_pipeline(up: Up) -> None:
    running = up(agent="", stream="ready_after_ms: 100000, fail_after_ms: 0")
    for attempt in range(3):
        wait_for(lambda n=attempt: len(running.journal.events("run")) > n, "an attempt")  # type: ignore[misc]
        os.kill(running.journal.pids()["stream"], signal.SIGKILL)
    code, said = running.finish()
    assert code == 1
    assert "the stream did not come up in 3 attempts" in said
    assert running.journal.events("run") == ["stream"] * 3, "no other part was started"


def test_a_second_signal_ends_everything_at_once(up: Up) -> None:
    running = up(stream="", agent="ignores_stop: true")
    running.wait_running()
    running.process.send_signal(signal.SIGTERM)
    wait_for(lambda: running.journal.events("stop") == ["agent"], "agent is asked to stop")
    running.process.send_signal(signal.SIGINT)
    code, said = running.finish()
    assert code == 1
    assert "SIGINT again: ending everything at once" in said
    assert not any(map(is_alive, running.journal.pids().values()))


def test_children_end_when_the_supervisor_is_killed(up: Up) -> None:
    running = all_four(up, agent="ignores_stop: true, starts_helper: true")
    running.wait_running()
    entries = running.journal.entries()
    pids = set(running.journal.pids().values())
    pids |= {int(event.split()[1]) for _, _, event in entries if event.startswith("helper")}
    assert len(pids) == 5

    running.process.kill()
    running.process.wait()

    wait_gone(pids, "all children are gone, the stuck one too")


def test_what_a_part_started_ends_with_it(up: Up) -> None:
    running = up(agent="starts_helper: true")
    running.wait_running()
    helper = next(
        int(event.split()[1]) for _, _, event in running.journal.entries() if "helper" in event
    )
    os.kill(running.journal.pids()["agent"], signal.SIGKILL)
    wait_for(lambda: not is_alive(helper), "the helper is gone")
    assert running.stop()[0] == 0


def test_status_is_written_and_read(up: Up) -> None:
    running = up(stream="", agent="problem: the disk is slow")
    running.wait_running()
    status = running.file.parent / "data" / "status.json"

    def agent() -> dict[str, object]:
        parts = json.loads(status.read_text())["parts"] if status.exists() else []
        return next((p for p in parts if p["part"] == "agent"), {})

    wait_for(lambda: agent().get("state") == "running", "status says running")
    assert agent()["figures"] == {"answer": 42}
    assert agent()["problems"] == ["the disk is slow"]

    shown = running.environment.run("status", str(running.file))
    assert shown.returncode == 0
    assert "answer 42" in shown.stdout
    assert "agent: the disk is slow" in shown.stderr
    as_json = running.environment.run("status", "--data", str(status.parent), "--json")
    assert json.loads(as_json.stdout)["alive"] is True

    assert running.stop()[0] == 0
    after = running.environment.run("status", str(running.file))
    assert after.returncode == 1
    assert "not running, stopped" in after.stdout
    assert "answer 42" in after.stdout, "the figures it ended with"


def test_a_second_pipeline_on_the_same_data_is_refused(up: Up) -> None:
    running = up(agent="")
    running.wait_running()
    second = running.environment.run("up", str(running.file))
    assert second.returncode == 1
    assert f"a pipeline is already running on {running.file.parent / 'data'}" in second.stderr
    assert str(running.process.pid) in second.stderr
    assert running.stop()[0] == 0


def test_a_part_alone_drains_on_a_signal_and_is_not_run_twice(up: Up) -> None:
    running = up(stream="", agent="")
    running.wait_running()
    third = running.environment.start("agent", str(running.file))
    _, said = third.communicate(timeout=TIMEOUT_S)
    assert third.returncode == 1
    assert "the part agent is already running" in said
    assert running.stop()[0] == 0

    alone = running.environment.start("agent", str(running.file))
    wait_for(lambda: running.journal.events("ready").count("agent") == 2, "the part alone")
    alone.send_signal(signal.SIGINT)
    alone.communicate(timeout=TIMEOUT_S)
    assert alone.returncode == 0
    assert running.journal.entries()[-1][2] == "drained"
