"""The chart of the scores by rung."""

from __future__ import annotations

import pytest

from fbnetv3.search.report.rung_figures import scores_by_rung
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")


def test_candidates_that_trained_further_are_counted() -> None:
    settings = {"rungs": (5, 10), "batch_size": 12, "iterations": 2, "finalists": 1}
    search = problem.search(final_seeds=2, **settings)
    result = search.run(problem.evaluate)
    epochs: dict[str, set[int | None]] = {}
    for trial in result.trials:
        epochs.setdefault(trial.id, set()).add(trial.max_epochs)
    further = sum(len(numbers) > 1 for numbers in epochs.values())
    assert further > 0
    figure = scores_by_rung(result, "score", "epoch")
    assert figure is not None
    # the two trainings of the finalist have equally many epochs
    assert f"{further} of {len(epochs)} candidates trained beyond their first" in figure.caption


def test_a_search_without_rungs_has_no_chart() -> None:
    result = problem.search(iterations=1, finalists=0).run(problem.evaluate)
    assert scores_by_rung(result, "score", "epoch") is None
