"""Charts of all variables, learning curves and networks show what they say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fbnetv3.search import Choice, FloatRange, IntRange, SearchSpace, Trial
from fbnetv3.search.report.curve_figures import learning_curves
from fbnetv3.search.report.network_figure import LayerBar, draw_network
from fbnetv3.search.report.variable_figures import (
    importance_figure,
    importances,
    parallel_coordinates,
)
from fbnetv3.search.result import SearchResult

SPACE = SearchSpace(
    [
        IntRange("depth", 1, 8, part="architecture"),
        FloatRange("lr", 1e-3, 1.0, part="recipe"),
        Choice("optimizer", ["<sgd>", "adamw"], part="recipe"),
        Choice("fixed", ["one"], part="recipe"),
    ]
)


def trials(count: int, *, noise: float = 0.0) -> list[Trial]:
    """Trials whose score is the depth, and a fifth of the learning rate."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        depth, lr = (
            int(random.integers(1, 9)),
            float(SPACE.parameters[1].value(int(random.integers(5)))),
        )
        config = {
            "depth": depth,
            "lr": lr,
            "optimizer": ["<sgd>", "adamw"][number % 2],
            "fixed": "one",
        }
        score = depth + lr / 5 + noise * float(random.normal())
        reports = {1: score / 2, 2: score}
        found.append(
            Trial(
                *(f"t{number}", number, 0, config),
                state="complete",
                score=score,
                final_score=score,
                reports=reports,
            )
        )
    return found


def test_the_variable_that_matters_is_the_most_important() -> None:
    found = importances(SPACE, trials(60))
    assert found is not None
    assert found.names[0] == "depth"
    assert set(found.names) == {"depth", "lr", "optimizer"}  # one that does not vary is left out
    assert found.values[0] > 1 > 10 * found.values[1] >= 0
    assert found.r2 > 0.9
    assert importances(SPACE, trials(60)) == found


def test_a_forest_that_predicts_nothing_says_so() -> None:
    found = importances(SPACE, trials(40, noise=1e3))
    assert found is not None
    figure = importance_figure(found, "score")
    assert ("do not trust" in figure.caption) == (found.r2 <= 0)
    assert figure.svg.count("<rect") == 3


@pytest.mark.parametrize("count", [0, 19])
def test_few_trials_have_no_importance(count: int) -> None:
    assert importances(SPACE, trials(count)) is None


def test_a_line_for_each_trial_ends_at_its_score() -> None:
    complete = trials(24)
    figure = parallel_coordinates(SPACE, complete, ["depth", "optimizer"], "score", "maximize")
    lines = re.findall(r'<path class="line (front|thin) hover" d="([^"]+)"', figure.svg)
    assert len(lines) == 24
    assert sum(kind == "front" for kind, _ in lines) == 6
    ends = {
        kind: [float(d.split()[-1]) for k, d in lines if k == kind] for kind in ("front", "thin")
    }
    assert max(ends["front"]) <= min(ends["thin"])  # the best scores are drawn at the top
    assert "&lt;sgd&gt;" in figure.svg
    assert "<sgd>" not in figure.svg
    worst = parallel_coordinates(SPACE, complete, ["depth"], "loss", "minimize")
    lines = re.findall(r'<path class="line (front|thin) hover" d="([^"]+)"', worst.svg)
    ends = {
        kind: [float(d.split()[-1]) for k, d in lines if k == kind] for kind in ("front", "thin")
    }
    assert min(ends["front"]) >= max(ends["thin"])


def test_learning_curves_are_those_of_trials_with_several_reports() -> None:
    complete = trials(5)
    complete[0].reports = {2: 1.0}
    figure = learning_curves(SearchResult(complete, None, None, [], {}), "score", "epoch")
    assert figure is not None
    assert figure.svg.count("hover") == 4
    assert figure.svg.count("line front hover") == 1
    for trial in complete:
        trial.reports = {}
    assert learning_curves(SearchResult(complete, None, None, [], {}), "score", "epoch") is None


def test_a_network_has_a_bar_for_each_layer() -> None:
    layers = [
        LayerBar(0, 16, 16, 3, "stem"),
        LayerBar(1, 24, 8, 5, "a & b"),
        LayerBar(1, 24, 8, 9, "large"),
        LayerBar(2, 480, 1, 1, "head"),
    ]
    figure = draw_network("best", layers)
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', figure.svg)]
    assert len(heights) == 4
    assert heights[0] < heights[1] == heights[2] < heights[3]
    assert re.findall(r'<rect class="(k\d)"', figure.svg) == ["k3", "k5", "k7", "k1"]
    assert re.findall(r'class="mark"[^>]*>([^<]+)<', figure.svg) == ["16 px", "8 px", "1 px"]
    assert "a &amp; b" in figure.svg
    assert "4 layers in 3 stages, up to 480 channels, 16 to 1 pixels" in figure.caption
