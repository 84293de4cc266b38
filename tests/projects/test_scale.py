"""projects/scale: the clock of simulated workers, training times, and the cost per trial."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbnetv3.search import JointNAS, Trial
from projects.scale import simulate
from projects.scale.simulate import SimulatedWorkers, recorded_times, synthetic_times
from tests.search.executors.running import evaluate_all


def test_recorded_times_follow_macs_and_keep_their_spread(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    macs = random.uniform(2e6, 8e6, 200)
    epochs = random.choice([5, 10], 200)
    seconds = epochs * (3 + macs / 1e6) * np.exp(0.1 * random.standard_normal(200))
    rows = [f"{m:.0f},{e},{s:.3f}" for m, e, s in zip(macs, epochs, seconds, strict=True)]
    path = tmp_path / "times.csv"
    path.write_text("\n".join(["macs,epochs,seconds", *rows]))
    times = recorded_times(path)
    draws = {m: np.array([times(m, random) for _ in range(500)]) for m in (0.5, 1.0, 1.5)}
    # An epoch takes 3 s plus 1 s per million MACs; the mean candidate has 5 million.
    for size, expected in ((0.5, 5.5 / 8), (1.0, 1.0), (1.5, 10.5 / 8)):
        assert draws[size].mean() == pytest.approx(expected, rel=0.05)
        assert draws[size].std() / draws[size].mean() == pytest.approx(0.1, rel=0.3)


def test_a_free_worker_takes_the_next_trial() -> None:
    workers = SimulatedWorkers(2, 1.0, lambda macs, random: macs, seed=0)
    trials = [
        Trial("", i, 0, {}, statistics={"macs": m}) for i, m in enumerate((3.0, 1.0, 1.0, 4.0))
    ]
    finished = evaluate_all(workers, lambda trial: 0.0, trials)
    assert [item.trial.number for item in finished] == [1, 2, 0, 3]
    assert workers.clock == 6.0  # the last trial starts at 2, when the second worker is free
    assert workers.busy == 9.0


def test_proposing_is_the_busy_share_until_the_last_submission() -> None:
    workers = SimulatedWorkers(2, 1.0, lambda macs, random: macs, seed=0)
    trials = [Trial("", i, 0, {}, statistics={"macs": m}) for i, m in enumerate((1.0, 2.0, 5.0))]
    workers.start(lambda trial: 0.0)
    for trial in trials[:2]:
        workers.submit(trial)
    workers.wait()
    workers.submit(trials[2])
    while workers.wait():
        pass
    assert workers.proposing == 1.0  # at time 1, when the first trial ended
    assert workers.busy / (2 * workers.clock) == 8 / 12


def test_synthetic_times_are_one_on_average() -> None:
    random = np.random.default_rng(0)
    draw = synthetic_times(0.25)
    assert np.mean([draw(1.0, random) for _ in range(2000)]) == pytest.approx(1.0, rel=0.02)


def _simulated(batch_size: int) -> dict[str, Any]:
    """Returns the costs of a search of two batches, without a storage."""
    return simulate.simulate(
        argparse.Namespace(
            problem="trainings", workers=4, batch_size=batch_size, iterations=2, ahead=0,
            spread=0.25, times=None, seed=0, storage=False,
        )
    )  # fmt: skip


@contextmanager
def _calls() -> Iterator[list[int]]:
    """Yields a list with the number of function calls, including built-in functions."""
    count = [0]

    def record_call(frame: object, event: str, argument: object) -> None:
        count[0] += event in ("call", "c_call")

    sys.setprofile(record_call)
    try:
        yield count
    finally:
        sys.setprofile(None)


def test_function_calls_per_trial_do_not_grow_with_the_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = partial(JointNAS, pool_size=1024, predictor="random", pretrain=False)
    monkeypatch.setattr(simulate, "JointNAS", small)
    _simulated(1)  # fills the caches of the process
    call_counts = []
    for batch_size in (50, 100, 200):
        with _calls() as count:
            result = _simulated(batch_size)
        call_counts.append(count[0])
        assert result["trials"] == 2 * batch_size
        assert 0 < result["busy"] <= 1
    # 200 further trials need about twice as many calls as 100, not four times as many
    first, second = np.diff(call_counts)
    assert 0 < second < 2.4 * first
