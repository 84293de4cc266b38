"""The searcher of Ray Tune: its contract, and a run of Ray's own tuner."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import Constraint, SearchError, SearchSettings, Trial
from tests.search import problem
from tests.search.executors.ray_clusters import imported

imported()
pytest.importorskip("ray.tune", reason="Ray Tune is not installed: pip install 'fbnetv3[tune]'")

from fbnetv3.search.integrations.ray_tune import JointNASSearcher  # noqa: E402

pytestmark = pytest.mark.usefixtures("short_training")
ARGUMENTS: dict[str, Any] = {
    "statistics": problem.statistics,
    "pool_size": 64,
    "batch_size": 3,
    "iterations": 2,
    "finalists": 2,
    "evolution": problem.evolution_settings(),
    "seed": 0,
}


def _searcher(**changes: Any) -> JointNASSearcher:
    return JointNASSearcher(
        problem.space(), **{"metric": "score", "mode": "max", **ARGUMENTS, **changes}
    )


def _quality(config: dict[str, Any]) -> float:
    return problem.quality(config)


def _finish(searcher: JointNASSearcher, name: str, config: dict[str, Any]) -> None:
    for step in (1, 2):
        result = {"score": _quality(config) * step / 2, "training_iteration": step}
        searcher.on_trial_result(name, result)
    searcher.on_trial_complete(name, result)


def _tune(searcher: JointNASSearcher, first: int = 0, stop: int = 99) -> list[dict[str, Any]]:
    """Asks for trials and finishes each, as Tune does with one trial at a time."""
    configs = []
    for number in range(first, stop):
        config = searcher.suggest(f"tune{number}")
        if config == "FINISHED":
            break
        assert isinstance(config, dict)
        _finish(searcher, f"tune{number}", config)
        configs.append(config)
    return configs


def _report(trial: Trial) -> float:
    for step in (1, 2):
        trial.report(step, _quality(trial.config) * step / 2)
    return trial.reports[2]


def test_it_proposes_the_trials_of_a_search() -> None:
    configs = _tune(searcher := _searcher())
    expected = problem.search(constraints=[], **ARGUMENTS).run(_report)
    assert configs == [t.config for t in expected.trials]
    assert problem.summary(searcher.search.result()) == problem.summary(expected)


def test_a_batch_waits_for_the_one_before() -> None:
    searcher = _searcher()
    configs = [searcher.suggest(f"t{i}") for i in range(4)]
    assert configs[3] is None
    for i in (2, 0):
        _finish(searcher, f"t{i}", configs[i])  # type: ignore[arg-type]
    assert searcher.suggest("t3") is None
    searcher.on_trial_complete("t1", None, error=True)
    assert isinstance(searcher.suggest("t3"), dict)
    failed = searcher.search.result().trials[1]
    assert failed.reason == "Ray Tune: the trial t1 ended with an error"


@pytest.mark.parametrize(
    "result", [{}, {"score": math.nan}, {"score": None}, {"score": True}, {"other": 1.0}]
)
def test_results_without_the_metric_are_failures(result: dict[str, Any]) -> None:
    searcher = _searcher()
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", {**result, "training_iteration": 1})
    searcher.on_trial_complete("unknown", {"score": 1.0})
    (trial,) = searcher.search.finished_trials()
    assert trial.reason == "Ray Tune: the trial t0 ended without a finite score"


@pytest.mark.parametrize("stop", [2, 3, 4, 7])
def test_a_restored_searcher_goes_on_as_an_undisturbed_one(stop: int, tmp_path: Path) -> None:
    undisturbed = _tune(_searcher())
    searcher = _searcher()
    _tune(searcher, stop=stop)
    running = searcher.suggest(f"tune{stop}")
    searcher.save(str(tmp_path / "state"))
    again = _searcher(metric=None, mode=None)
    again.restore(str(tmp_path / "state"))
    _finish(again, f"tune{stop}", running)  # type: ignore[arg-type]
    assert _tune(again, stop + 1) == undisturbed[stop + 1 :]
    copied = pickle.loads(pickle.dumps(searcher))
    _finish(copied, f"tune{stop}", running)  # type: ignore[arg-type]
    assert _tune(copied, stop + 1) == undisturbed[stop + 1 :]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"numbers": 5}'])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text(text)
    with pytest.raises(SearchError, match="is no state of a JointNASSearcher"):
        _searcher().restore(str(path))
    with pytest.raises(SearchError, match="is no state of a JointNASSearcher"):
        _searcher().restore(str(tmp_path / "no"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"executor": None}, "executor= is not allowed, since Ray Tune evaluates the trials"),
        ({"direction": "minimize"}, "direction= is not allowed, since mode= sets it"),
        ({"ahead": 2}, "ahead= is not allowed"),
        ({"rungs": [1, 3]}, "rungs= is not allowed, since a trainable is not told the epoch"),
        ({"final_seeds": 2}, "final_seeds= is not allowed, since a trainable is not told the seed"),
        ({"settings": SearchSettings(final_seeds=2)}, "final_seeds= is not allowed"),
        ({"settings": SearchSettings(rungs=(1, 3))}, "rungs= is not allowed"),
        ({"settings": SearchSettings(ahead=1)}, "ahead= is not allowed"),
        ({"mode": "up"}, "mode='up' is unknown; allowed: max, min"),
    ],
)
def test_arguments_that_do_not_apply_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        _searcher(**changes)
    with pytest.raises(SearchError, match="needs metric= and mode="):
        _searcher(metric=None, mode=None).suggest("t0")


_MEMORY = Constraint("memory", upper=20.0)
_NAMED: list[tuple[str, dict[str, Any]]] = [
    ("top1", {"objectives": ["top1", "-memory"]}),
    ("top1", {"objectives": ["-macs", "top1"]}),
    ("top1", {"objectives": ["top1"], "score_constraints": [_MEMORY]}),
    ("reward", {"score_constraints": [_MEMORY]}),
    ("reward", {"objectives": ["score", "-macs"]}),
    ("reward", {"objectives": ["score", "-macs"], "score_constraints": [_MEMORY]}),
]


def _metrics(config: dict[str, Any], first: str) -> dict[str, float]:
    memory = float(problem.statistics([config])["macs"][0]) ** 0.5
    return {first: _quality(config), "memory": memory, "other": 1.0}


@pytest.mark.parametrize(("metric", "changes"), _NAMED, ids=str)
def test_scores_are_the_metrics_of_their_names(
    metric: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    def evaluate(trial: Trial) -> Any:
        values = _metrics(trial.config, "score")
        trial.report(1, values["score"])
        by_name = {n: values["memory" if n == "memory" else "score"] for n in trial.score_names}
        return by_name or values["score"]

    searcher = _searcher(metric=metric, **changes)
    while isinstance(config := searcher.suggest("t"), dict):
        searcher.on_trial_complete("t", {**_metrics(config, metric), "training_iteration": 1})
    expected = problem.search(constraints=[], **{**ARGUMENTS, **changes}).run(evaluate)
    trials = searcher.search.result().trials
    assert problem.summary(searcher.search.result()) == problem.summary(expected)
    assert [t.scores for t in trials] == [t.scores for t in expected.trials]
    searcher.save(str(tmp_path / "state"))
    again = _searcher(metric=None, mode=None, **changes)
    again.restore(str(tmp_path / "state"))
    assert again.suggest("more") == "FINISHED"
    assert [t.scores for t in again.search.result().trials] == [t.scores for t in trials]


def test_a_missing_score_and_another_first_score_are_told() -> None:
    searcher = _searcher(metric="reward", score_constraints=[_MEMORY])
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", {"reward": 1.0, "memory": math.inf})
    (trial,) = searcher.search.finished_trials()
    assert trial.reason == "Ray Tune: the trial t0 ended without a finite memory"
    with pytest.raises(SearchError, match=r"metric='loss' is not the first score.*metric='top1'"):
        _searcher(metric="loss", objectives=["top1", "-memory"]).suggest("t0")


@pytest.mark.slow
def test_rays_tuner_runs_the_search(tmp_path: Path) -> None:
    from ray import tune

    from tests.search.executors.ray_clusters import ray_workers

    # Inside the test, so that it is pickled as code: the processes of the trials would import this
    # module, and with it torch, for seconds each.
    def trainable(config: dict[str, Any]) -> None:
        for step in (1, 2):
            tune.report({"loss": -problem.quality(config) * step / 2 + config["constant"]})

    ray_workers(1)  # starts the cluster of the tests
    changes = {"metric": None, "mode": None, "batch_size": 2, "finalists": 1}
    searcher = _searcher(**changes)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.25}),
        param_space={"constant": 0.0},
        tune_config=tune.TuneConfig(
            metric="loss", mode="min", search_alg=searcher, num_samples=-1, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="run", verbose=0),
    )
    results = tuner.fit()
    assert len(results) == 5
    assert not results.errors
    values = {result.metrics["loss"] for result in results}
    assert results.get_best_result().metrics["loss"] == min(values)
    (state,) = (tmp_path / "run").glob("searcher-state-*.pkl")
    again = _searcher(**changes)
    again.restore(str(state))
    assert {t.final_score for t in again.search.result().trials} == values
    assert again.suggest("more") == "FINISHED"
