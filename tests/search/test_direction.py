"""A search for the lowest score is that for the highest negative score, with the user's sign."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import optuna
import pytest

from fbnetv3.search import Constraint, JointNAS, SearchError, Trial
from fbnetv3.search.chance import check_above_chance
from fbnetv3.search.fbnet.config import settings_from_config
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.report import write_report
from fbnetv3.search.report.progress import SearchProgress
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")
SMALL = {"pool_size": 64, "batch_size": 5, "finalists": 2}
WARM = {"depth": 2, "kernel": 3, **dict.fromkeys(problem.WIDTHS, 32), "lr": 0.01, "decay": 0.5}


def _loss(trial: Trial) -> float:
    """Returns the negative score of the problem, and reports negative scores."""
    twin = dataclasses.replace(trial, reports={}, on_report=None)
    score = problem.evaluate(twin)
    for epoch, value in twin.reports.items():
        trial.report(epoch, -value)
    return -score


def _search(direction: str, **changes: Any) -> JointNAS:
    sign = -1.0 if direction == "minimize" else 1.0
    warm = [({**WARM, "optim": "sgd"}, sign * 1.5), ({**WARM, "optim": "rmsprop"}, sign * 1.25)]
    return problem.search(direction=direction, warm_start=warm, **{**SMALL, **changes})


def _negated(result: Any) -> list[tuple[Any, ...]]:
    """Returns the summary of a result with the opposite sign of scores and predictions."""
    return [
        (
            *row[:5],
            None if row[5] is None else -row[5],
            None if row[6] is None else -row[6],
            row[7],
            {epoch: -score for epoch, score in row[8].items()},
        )
        for row in problem.summary(result)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"predictor": "paper"},
        {"budgets": [Constraint("macs", upper=300.0), Constraint("macs", upper=500.0)]},
        {"early_stop_over": "all", "early_stop_threshold": 0.5},
    ],
)
def test_the_negated_problem_has_the_same_candidates_bit_for_bit(changes: dict[str, Any]) -> None:
    highest, lowest = _search("maximize", **changes), _search("minimize", **changes)
    score, loss = highest.run(problem.evaluate), lowest.run(_loss)
    assert _negated(loss) == problem.summary(score)
    assert any(t.predicted is not None for t in loss.trials)
    assert (loss.best.id, loss.best.score) == (score.best.id, -float(score.best.score or 0))
    assert loss.best.score == min(t.score for t in loss.feasible if t.score is not None)
    assert [t.id for t in loss.pareto("macs")] == [t.id for t in score.pareto("macs")]
    evolved, opposite = lowest.evolve(top_k=5), highest.evolve(top_k=5)
    assert [(c.id, c.predicted) for c in evolved] == [(c.id, -c.predicted) for c in opposite]


def test_storage_callbacks_and_continued_searches_have_the_sign_of_the_user(tmp_path: Path) -> None:
    url, seen = f"sqlite:///{tmp_path / 'a.db'}", []
    whole = _search("minimize").run(_loss)

    def stop(search: JointNAS, event: Any) -> None:
        seen.append(event.trial.score)
        if event.kind == "finish" and event.trial.number == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _search("minimize", storage=url).run(_loss, callbacks=[stop])
    assert problem.summary(_search("minimize", storage=url).run(_loss)) == problem.summary(whole)
    study = optuna.load_study(study_name="jointnas", storage=url)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    own = [t for t in whole.trials if t.batch >= 0]
    assert study.best_value == min(t.final_score for t in own if t.final_score is not None)
    assert set(seen) - {None} <= {t.final_score for t in own}
    with pytest.raises(SearchError, match=r"directions \['minimize'\], but a search"):
        _search("maximize", storage=url)


def test_the_direction_is_stored_only_if_scores_are_minimised() -> None:
    assert "direction" not in problem.search().settings
    assert problem.search(direction="minimize").settings["direction"] == "minimize"


def test_unknown_directions_are_refused() -> None:
    with pytest.raises(SearchError, match="direction='up' is unknown; allowed: maximize, minimize"):
        problem.search(direction="up")


def test_report_and_progress_show_the_lowest_score(tmp_path: Path) -> None:
    search, stream = problem.search(direction="minimize"), io.StringIO()
    progress = SearchProgress(19, stream, direction="minimize")
    result = search.run(
        lambda trial: 100.0 + trial.number, callbacks=[lambda search, event: progress.show(event)]
    )
    assert stream.getvalue().count("best 100.00") == len(result.trials) == 19
    page = tmp_path / "report.html"
    write_report(page, problem.space(), result)
    assert "from 100 to 100 in 19 trials" in page.read_text(encoding="utf-8")


def test_chance_is_above_the_losses_of_candidates_that_learn() -> None:
    trials = [Trial(str(i), i, 0, {}) for i in range(4)]
    for trial in trials:
        trial.finish(2.5 + trial.number)
    evaluate = type("Evaluate", (), {"chance_score": 2.5, "__call__": problem.evaluate})()
    with pytest.raises(SearchError, match=r"below chance \(2.5\): the best of 4 has 2.5"):
        check_above_chance(evaluate, trials, trials, "minimize")
    trials[3].final_score = 2.4
    check_above_chance(evaluate, trials, trials, "minimize")


def test_a_config_minimises_the_scores_of_an_evaluator_of_its_own_only() -> None:
    cfg = get_search_cfg()
    assert settings_from_config(cfg).direction == "maximize"
    cfg.SEARCH.DIRECTION = "minimize"
    with pytest.raises(SearchError, match="'minimize' is not allowed with SEARCH"):
        settings_from_config(cfg)
    cfg.SEARCH.EVALUATOR = "my_loss"
    assert settings_from_config(cfg).direction == "minimize"
