"""Submitted trials that have not started can be withdrawn from every executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import Trial
from tests.search.executors.running import evaluate_all, make_trials
from tests.search.executors.shared import WITHOUT_WORKERS, WORKERS


@pytest.mark.parametrize("kind", [*WITHOUT_WORKERS, *WORKERS])
def test_withdrawn_trials_do_not_start(kind: str, shared_executors: Any, tmp_path: Path) -> None:
    def evaluate(trial: Trial) -> float:
        (tmp_path / f"{trial.number}").touch()
        return 1.0

    executor = shared_executors(kind, 2) if kind in WORKERS else WITHOUT_WORKERS[kind]()
    executor.start(evaluate)
    for trial in make_trials(9):
        executor.submit(trial)
    results = executor.wait()
    executor.withdraw()
    while finished := executor.wait():
        results += finished
    started = {int(path.name) for path in tmp_path.iterdir()}
    assert {finished.trial.number for finished in results} == started
    assert len(started) < 9
    # the workers are not lost to later trials
    assert len(evaluate_all(executor, evaluate, make_trials(3))) == 3
