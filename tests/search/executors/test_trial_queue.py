"""Which worker may take which trial, after faults of memory and of devices."""

from __future__ import annotations

import pytest

from fbnetv3.search.executors.base import Finished
from fbnetv3.search.executors.device_faults import DEVICE, MEMORY
from fbnetv3.search.executors.trial_queue import TrialQueue
from tests.search.executors.running import make_trials


def _failed(trial: object, fault: str | None) -> Finished:
    return Finished(trial, None, "why", fault)  # type: ignore[arg-type]


def test_trials_are_taken_in_their_order() -> None:
    queue, trials = TrialQueue(), make_trials(3)
    for trial in trials:
        queue.put(trial)
    assert [queue.take("0"), queue.take("1"), queue.take("0")] == trials
    assert queue.take("0") is None


@pytest.mark.parametrize("fault", [None, MEMORY, DEVICE])
def test_a_trial_is_retried_once(fault: str | None) -> None:
    queue, (trial,) = TrialQueue(), make_trials(1)
    assert queue.retry(_failed(trial, fault), "0") == []
    assert queue.take("0") is trial
    (finished,) = queue.retry(_failed(trial, fault), "0")
    assert finished.reason == "why; this was the second attempt"
    assert finished.fault == fault
    assert len(queue) == 0


def test_after_a_lack_of_memory_a_trial_waits_until_it_is_alone_on_its_device() -> None:
    queue, (large, second, third, busy) = TrialQueue(), make_trials(4)
    queue.retry(_failed(large, MEMORY), "0")
    queue.put(second)
    queue.put(third)
    assert queue.take("0", [busy]) is None  # it waits for the other worker of GPU 0
    assert queue.take("1", [busy]) is second  # while GPU 1 goes on
    assert queue.take("0") is large
    assert queue.must_be_alone(large)
    assert queue.take("0", [large]) is None  # nothing new beside it
    assert queue.take("0") is third


def test_after_a_device_error_another_device_evaluates_the_trial() -> None:
    queue, (trial, other) = TrialQueue(), make_trials(2)
    queue.retry(_failed(trial, DEVICE), "0")
    queue.put(other)
    assert queue.has_failed_on("0")
    assert not queue.has_failed_on("1")
    assert queue.take("0", has_others=True) is other
    assert queue.take("0", has_others=True) is None
    assert queue.take("1", has_others=True) is trial


def test_a_single_device_evaluates_the_trial_again() -> None:
    queue, (trial,) = TrialQueue(), make_trials(1)
    queue.retry(_failed(trial, DEVICE), "0")
    assert queue.take("0", has_others=False) is trial
