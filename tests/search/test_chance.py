"""A search whose first candidates score at chance ends with advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import FloatRange, JointNAS, SearchError, SearchSpace, Trial

SPACE = SearchSpace([FloatRange("x", 0.0, 1.0)])


class Evaluator:
    """Scores trials by their number, and counts them."""

    def __init__(self, scores: list[float], **attributes: Any) -> None:
        self._scores, self.count = scores, 0
        vars(self).update(attributes)

    def __call__(self, trial: Trial) -> float:
        self.count += 1
        return self._scores[trial.number % len(self._scores)]


def _search(**changes: Any) -> JointNAS:
    return JointNAS(
        SPACE, **{"pool_size": 128, "batch_size": 5, "iterations": 2, "finalists": 1, **changes}
    )


def test_a_first_batch_at_chance_ends_the_search(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    evaluate = Evaluator([10.0, 11.0, 9.5], chance_score=12.0)
    for _ in range(2):  # the same command gives the same error, and trains nothing more
        with pytest.raises(
            SearchError, match=r"above chance \(12\).*best of 5 has 11, .*longer"
        ) as error:
            _search(storage=url).run(evaluate)
        assert "\n" not in str(error.value)
    assert evaluate.count == 5
    assert len(_search(storage=url).result().trials) == 5


@pytest.mark.parametrize(
    ("scores", "attributes", "changes"),
    [
        ([10.0, 11.0, 13.0], {"chance_score": 12.0}, {}),  # one is above
        ([10.0, 11.0], {}, {}),  # chance is not known
        ([10.0, 11.0], {"chance_score": None}, {}),
        ([10.0, 11.0], {"chance_score": float("nan")}, {}),
        ([10.0], {"chance_score": 12.0}, {"iterations": 1}),  # only the finalist is left
        ([10.0], {"chance_score": 12.0}, {"batch_size": 3}),  # too few to judge
        ([10.0], {"chance_score": 12.0}, {"warm_start": [({"x": 0.5}, 80.0)]}),
    ],
)
def test_other_searches_go_on(
    scores: list[float], attributes: dict[str, Any], changes: dict[str, Any]
) -> None:
    evaluate = Evaluator(scores, **attributes)
    search = _search(**changes)
    search.run(evaluate)
    assert evaluate.count == len(search.trials)
    assert search.trials[-1].stage == "fine"


def test_the_evaluator_may_give_the_advice() -> None:
    evaluate = Evaluator([1.0], chance_score=2.0, chance_advice="raise SOLVER.MAX_EPOCHS")
    with pytest.raises(SearchError, match=r"; raise SOLVER\.MAX_EPOCHS$"):
        _search().run(evaluate)
