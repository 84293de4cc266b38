"""Whole searches of a synthetic problem: proposals, early stopping, failures, results."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path

import numpy as np
import pytest

from fbnetv3.search import (
    Constraint,
    EvolutionSettings,
    InfeasibleError,
    IntRange,
    JointNAS,
    SearchError,
    SearchSpace,
    Trial,
)
from fbnetv3.search.executors.base import Evaluate, Finished
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")


@pytest.fixture(scope="module")
def undisturbed() -> list[tuple[object, ...]]:
    return problem.summary(problem.search().run(problem.evaluate))


class Shuffled:
    """An executor that finishes trials in random order, several at a time."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._random = random.Random(0)

    def start(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def submit(self, trial: Trial) -> None:
        self._trials.append(trial)

    def wait(self) -> list[Finished]:
        self._random.shuffle(self._trials)
        batch, self._trials = self._trials[:2], self._trials[2:]
        return [Finished(trial, self._evaluate(trial)) for trial in batch]

    def close(self) -> None:
        return


def test_a_search_is_seeded_and_results_may_come_in_any_order(undisturbed: list) -> None:
    result = problem.search(executor=Shuffled()).run(problem.evaluate)
    assert problem.summary(result) == undisturbed
    assert problem.summary(problem.search(seed=1).run(problem.evaluate)) != undisturbed


def test_ask_and_tell_give_the_same_search(undisturbed: list) -> None:
    search = problem.search()
    while trials := search.ask():
        assert search.ask() == trials
        half = trials[: len(trials) // 2 + 1]
        search.tell(half, [problem.evaluate(t) for t in half])
    assert problem.summary(search.result()) == undisturbed


@pytest.mark.parametrize("predictor", ["default", "paper"])
def test_constraints_hold_and_no_candidate_is_proposed_twice(predictor: str) -> None:
    search = problem.search(predictor=predictor, iterations=3)
    result = search.run(problem.evaluate)
    assert len(result.trials) == 3 * 8 + 3
    assert len({t.id for t in result.trials}) == len(result.trials)
    costs = problem.statistics([t.config for t in result.trials])["macs"]
    assert (costs <= problem.UPPER).all()
    assert [t.statistics["macs"] for t in result.trials] == costs.tolist()
    assert result.best.score == max(t.score for t in result.trials if t.score is not None)


@pytest.mark.parametrize("predictor", ["default", "paper"])
def test_batches_and_finalists_are_divided_among_budgets(predictor: str) -> None:
    budgets = [Constraint("macs", upper=200), Constraint("macs", upper=400)]
    search = problem.search(predictor=predictor, budgets=budgets, finalists=5)
    result = search.run(problem.evaluate)
    assert len({t.id for t in result.trials}) == len(result.trials)
    for batch, least in ((1, 4 if predictor == "default" else 0), (2, 3)):
        costs = [t.statistics["macs"] for t in result.trials if t.batch == batch]
        assert max(costs) <= (400 if least else problem.UPPER)
        assert sum(cost <= 200 for cost in costs) >= least
    best = result.best_within(budgets[0])
    assert best is not None
    assert best.statistics["macs"] <= 200
    within = [t for t in result.trials if t.statistics["macs"] <= 200]
    assert best.score == max(t.score for t in within if t.score is not None)
    assert result.best_within(Constraint("macs", upper=0)) is None
    assert "budgets" in search.settings


def test_a_budget_without_trained_candidates_still_gets_a_share() -> None:
    budgets = [Constraint("macs", upper=70), Constraint("macs", upper=600)]
    search = problem.search(budgets=budgets)
    search.tell(first := search.ask(), [problem.evaluate(t) for t in first])
    assert min(t.statistics["macs"] for t in first) > 70
    second = search.ask()
    assert sum(t.statistics["macs"] <= 70 for t in second) >= 4


def test_an_infeasible_budget_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="macs <= 3"):
        problem.search(budgets=[Constraint("macs", upper=3)])
    with pytest.raises(SearchError, match="lower=700 is above upper=600"):
        problem.search(budgets=[Constraint("macs", lower=700)])


def test_early_stopping_shortens_later_trials_and_compares_all_at_that_epoch() -> None:
    result = problem.search().run(problem.evaluate)
    assert result.early_stop is not None
    epoch = result.early_stop.epoch
    # the ranking is final from epoch 5 on, and by chance perhaps a little earlier
    assert epoch is not None
    assert epoch <= 5
    first, later = result.trials[:8], result.trials[8:]
    assert {t.max_epochs for t in first} == {None}
    assert {t.max_epochs for t in later} == {epoch}
    assert all(t.score == t.reports[epoch] for t in first)
    assert all(t.final_score == t.reports[10] for t in first)


def test_a_result_stays_as_it_is_while_the_search_goes_on() -> None:
    search = problem.search(iterations=3)
    trials = search.ask()
    for trial in trials:
        search.tell([trial], [problem.evaluate(trial)])
    result = search.result()
    assert result.early_stop is not None
    assert result.early_stop.epoch is not None  # from now on the score at this epoch counts
    before = copy.deepcopy([vars(t) for t in result.trials])
    best, front = result.best.score, [t.score for t in result.pareto("macs")]
    while trials := search.ask():
        assert {t.max_epochs for t in trials} == {result.early_stop.epoch}
        search.tell(trials, [problem.evaluate(t) for t in trials])
    assert len(search.result().trials) > len(before)
    assert [vars(t) for t in result.trials] == before
    assert (result.best.score, [t.score for t in result.pareto("macs")]) == (best, front)


def test_a_query_changes_no_trial() -> None:
    search = problem.search()
    trials = search.ask()
    search.tell(trials, [problem.evaluate(t) for t in trials])
    before = copy.deepcopy([vars(t) for t in trials])
    first = search.result()
    search.ask()
    search.evolve()
    assert [vars(t) for t in trials] == before
    # the compared score is another than the returned one
    assert [t.score for t in first.trials] != [t.final_score for t in first.trials]
    assert [t.final_score for t in first.trials] == [t.score for t in trials]


def test_early_stopping_can_be_off() -> None:
    result = problem.search(early_stop_threshold=None).run(problem.evaluate)
    assert {t.max_epochs for t in result.trials} == {None}


def test_a_failure_affects_one_trial_and_has_a_reason() -> None:
    def evaluate(trial: Trial) -> float | None:
        if trial.number == 1:
            raise ValueError("no such\nlayer")
        return {2: math.nan, 3: None, 4: math.inf, 5: "high"}.get(trial.number, 1.0 * trial.number)  # type: ignore[return-value]

    result = problem.search(early_stop_threshold=None).run(evaluate)
    reasons = {t.number: t.reason for t in result.trials if t.state == "failed"}
    assert sorted(reasons) == [1, 2, 3, 4, 5]
    assert reasons[1] is not None
    assert reasons[1].startswith("ValueError: no such layer (test_jointnas.py:")
    assert reasons[2] == "the score is nan"
    assert reasons[3] == "no score was returned"
    assert reasons[4] == "the score is inf"
    assert "'high'" in str(reasons[5])
    assert result.best.number == 18


def test_a_search_without_scores_ends_with_the_reason() -> None:
    result = problem.search(stop_after_failures=0).run(lambda trial: math.nan)
    assert all(t.state == "failed" for t in result.trials)
    with pytest.raises(SearchError, match="none of 16 trials has a score: the score is nan"):
        _ = result.best


def test_scores_that_are_noise_are_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(1).standard_normal(100)
    problem.search(batch_size=16).run(lambda trial: float(noise[trial.number]))
    assert any("no better than chance" in record.message for record in caplog.records)


def test_report_cards_compare_predictions_with_scores() -> None:
    result = problem.search().run(lambda t: problem.quality(t.config))
    assert [card.trials for card in result.report_cards] == [8, 16, 19]
    assert [len(card.batch) for card in result.report_cards] == [0, 8, 3]
    for predicted, score in result.report_cards[1].batch:
        trial = next(t for t in result.trials if t.predicted == predicted)
        assert trial.score == score


def test_the_pareto_front_has_the_trials_that_no_other_beats() -> None:
    result = problem.search().run(lambda t: problem.quality(t.config))
    front = result.pareto("macs")
    for trial in result.trials:
        is_beaten = any(
            t.statistics["macs"] <= trial.statistics["macs"]
            and (t.score or 0) >= (trial.score or 0)
            and (t.statistics["macs"], t.score) != (trial.statistics["macs"], trial.score)
            for t in result.trials
        )
        assert (trial in front) != is_beaten
    with pytest.raises(SearchError, match=r"'mac'.*did you mean macs"):
        result.pareto("mac")


def test_one_predictor_serves_many_budgets() -> None:
    thorough = EvolutionSettings(patience=10)
    search = problem.search(iterations=2, batch_size=32, evolution=thorough)
    search.run(lambda t: problem.quality(t.config))
    before = None
    for upper in (100.0, 300.0, 600.0):
        top = search.evolve([Constraint("macs", upper=upper)], top_k=5)
        assert len(top) == len({c.id for c in top}) == 5
        assert all(c.statistics["macs"] <= upper for c in top)
        assert [c.predicted for c in top] == sorted((c.predicted for c in top), reverse=True)
        assert before is None or top[0].predicted > before - 0.02
        before = top[0].predicted
    with pytest.raises(SearchError, match="nearest bound"):
        search.evolve([Constraint("macs", upper=1.0)])


def test_the_evolution_does_not_depend_on_how_many_candidates_are_asked_for() -> None:
    search = problem.search()
    search.run(problem.evaluate)
    budget = [Constraint("macs", upper=450)]
    top = search.evolve(budget)
    assert len(top) == problem.evolution_settings().top
    assert search.evolve(budget, top_k=1) == top[:1]
    assert len(search.evolve(budget, top_k=15)) == 15


def test_a_warm_start_gives_the_first_batch_a_predictor(tmp_path: Path) -> None:
    earlier = problem.search().run(lambda t: problem.quality(t.config)).trials
    warm = problem.search(warm_start=earlier, seed=5)
    first = warm.ask()
    assert all(t.predicted is not None for t in first)
    assert not {t.id for t in first} & {t.id for t in earlier}
    path = tmp_path / "trials.csv"
    names = list(problem.space().names)
    rows = [",".join([*names, "score"])]
    rows += [",".join(map(repr, [*t.config.values(), t.score])).replace("'", "") for t in earlier]
    path.write_text("\n".join(rows))
    assert [t.id for t in problem.search(warm_start=path, seed=5).ask()] == [t.id for t in first]


def test_warm_start_errors(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("depth\n1\n")
    with pytest.raises(SearchError, match="no column 'score'"):
        problem.search(warm_start=tmp_path / "a.csv")
    with pytest.raises(SearchError, match="no variable 'dept'"):
        problem.search(warm_start=[({"dept": 1}, 1.0)])


def test_a_space_without_statistics_or_architecture() -> None:
    space = SearchSpace([IntRange("a", 0, 30), IntRange("b", 0, 30)])
    search = JointNAS(space, pool_size=500, batch_size=6, iterations=3, finalists=2)
    result = search.run(lambda t: -((t.config["a"] - 7) ** 2) - (t.config["b"] - 21) ** 2)
    assert result.best.score is not None
    assert result.best.score > -20


@pytest.mark.parametrize("predictor", ["default", "paper"])
def test_an_exhausted_space_ends_the_search(predictor: str) -> None:
    space = SearchSpace([IntRange("a", 0, 3), IntRange("b", 0, 3)])
    search = JointNAS(space, pool_size=100, batch_size=6, iterations=5, predictor=predictor)
    result = search.run(lambda t: float(t.config["a"] * t.config["b"]))
    assert len({t.id for t in result.trials}) == len(result.trials) == 16
    assert result.best.score == 9


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch_size": 600}, "batch_size=600 is larger than the pool"),
        ({"constraints": [Constraint("flops", upper=1)]}, "the statistics are macs, params"),
        ({"storage": "no url"}, "cannot open storage"),
    ],
)
def test_wrong_arguments_give_one_line(changes: dict, text: str) -> None:
    with pytest.raises(SearchError, match=text) as error:
        problem.search(**changes)
    assert "\n" not in str(error.value)


def test_a_batch_larger_than_a_small_space() -> None:
    space = SearchSpace([IntRange("a", 0, 3)])
    with pytest.raises(SearchError, match="only 4 candidates"):
        JointNAS(space, pool_size=100, batch_size=6)


def test_results_of_trials_that_do_not_run_are_refused() -> None:
    search = problem.search()
    trials = search.ask()
    with pytest.raises(SearchError, match="equal length"):
        search.tell(trials, [1.0])
    search.tell(trials[:1], [1.0])
    with pytest.raises(SearchError, match="not waiting for a result"):
        search.tell(trials[:1], [1.0])
