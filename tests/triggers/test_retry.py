"""Decisions between attempts."""

from __future__ import annotations

from headrace.triggers.retry import FOREVER, Again, Decision, Done, GiveUp, decide


def test_success_is_done() -> None:
    assert decide(size=3, failed_from=None, invokes=1, retries=0) == Done(3)


def test_retries_of_n_are_n_plus_1_invocations() -> None:
    for retries in (0, 1, 2, 3):
        decisions = [
            decide(size=1, failed_from=0, invokes=invokes, retries=retries)
            for invokes in range(1, retries + 2)
        ]
        assert decisions == [Again()] * retries + [GiveUp()]


def test_forever() -> None:
    assert decide(size=1, failed_from=0, invokes=1_000_000, retries=FOREVER) == Again()


def test_progress_is_kept_and_the_rest_has_its_own_retries() -> None:
    """Scenario 9: batch 4, 5, 6 with retries 3, and 6 always fails. It is invoked five times."""
    batch, count_of_6 = [4, 5, 6], 0
    invokes = 0
    decision: Decision = Again()
    while not isinstance(decision, GiveUp):
        invokes += 1
        count_of_6 += 1
        decision = decide(size=len(batch), failed_from=batch.index(6), invokes=invokes, retries=3)
        if isinstance(decision, Done):
            batch, invokes = batch[decision.count :], 0
    assert (batch, invokes, count_of_6) == ([6], 4, 5)


def test_failing_at_the_first_record_again_and_again_ends() -> None:
    assert decide(size=3, failed_from=0, invokes=4, retries=3) == GiveUp()
