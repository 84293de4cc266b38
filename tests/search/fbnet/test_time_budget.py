"""The time budget of a run interrupts it as Ctrl-C does, and only it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from fbnetv3.search import SearchError
from fbnetv3.search.fbnet.time_budget import TimeBudget


def test_the_block_is_interrupted_when_the_time_is_over() -> None:
    before = signal.getsignal(signal.SIGTERM)
    start, budget = time.monotonic(), TimeBudget(0.3 / 3600)
    with pytest.raises(KeyboardInterrupt), budget:
        time.sleep(60)
    assert time.monotonic() - start < 30
    assert budget.is_used_up
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("hours", [0.0, 1.0, 1e6])
def test_a_block_that_ends_in_time_is_not(hours: float) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with TimeBudget(hours) as budget:
        pass
    assert not budget.is_used_up
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_from_outside_is_no_end_of_the_time() -> None:
    budget = TimeBudget(1.0)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(KeyboardInterrupt), budget:
        time.sleep(60)
    assert not budget.is_used_up


def test_threads_are_refused_since_only_the_main_thread_gets_signals() -> None:
    errors: list[Exception] = []

    def make() -> None:
        TimeBudget(0.0)
        try:
            TimeBudget(1.0)
        except SearchError as error:
            errors.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert "SEARCH.MAX_HOURS=1 needs the main thread" in str(errors[0])
