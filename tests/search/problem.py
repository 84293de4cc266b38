"""A synthetic problem with a known optimum over architecture and recipe, and small searches.

Workers import this module for ``evaluate``. Torch and scipy, which only a search needs, would take
most of the time of their short lives, and are imported where a search is made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fbnetv3.search import Choice, Constraint, FloatRange, IntRange, SearchSpace, Trial, When

if TYPE_CHECKING:
    from fbnetv3.search import EvolutionSettings, JointNAS

UPPER = 600.0
WIDTHS = tuple(f"w{i}" for i in range(4))


def space() -> SearchSpace:
    """Returns a space with a depth, widths, a kernel that is active from depth 2 on, a recipe."""
    return SearchSpace(
        [
            IntRange("depth", 1, 5, part="architecture"),
            Choice("kernel", (3, 5), part="architecture", active_if=When("depth", ">", 1)),
            *(IntRange(name, 8, 64, step=8, part="architecture") for name in WIDTHS),
            FloatRange("lr", 1e-4, 1e-1, log=True),
            FloatRange("decay", 0.0, 1.0, step=0.05),
            Choice("optim", ("rmsprop", "sgd")),
        ]
    )


def statistics(configs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the cost of each candidate, (candidates,) by name."""
    macs = np.array([c["depth"] * sum(c[w] for w in WIDTHS) for c in configs], dtype=float)
    return {"macs": macs, "params": np.sqrt(macs) + 1}


def _statistics_of_columns(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the same costs from the values of each variable, without a dict per candidate."""
    macs = np.asarray(columns["depth"] * sum(columns[w] for w in WIDTHS), dtype=float)
    return {"macs": macs, "params": np.sqrt(macs) + 1}


# A search asks for the costs of tens of thousands of candidates before it proposes the first one.
vars(statistics)["of_columns"] = _statistics_of_columns


def quality(config: dict[str, Any]) -> float:
    """Returns the true score, at most log(600) / 2 under the constraint with the best recipe."""
    recipe = (math.log10(config["lr"]) + 2.3) ** 2 + (config["decay"] - 0.3) ** 2
    optim = 0.2 * (config["optim"] == "rmsprop")
    cost = float(statistics([config])["macs"][0])
    return math.log(cost) / 2 - recipe - optim - abs(config["w2"] - 32) / 64


def evaluate(trial: Trial) -> float:
    """Returns a score with a learning curve that ranks candidates as at the end from epoch 5 on."""
    final = quality(trial.config)
    last = trial.max_epochs or 10
    for epoch in range(1, last + 1):
        noise = 0.0 if epoch >= 5 else math.sin(37 * final) * (5 - epoch)
        trial.report(epoch, final - 10 / epoch + noise)
    return trial.reports[last]


def evolution_settings() -> EvolutionSettings:
    """Returns settings of a short stage 2."""
    from fbnetv3.search import EvolutionSettings

    return EvolutionSettings(best=10, random=10, children=6, top=10)


def search(**changes: Any) -> JointNAS:
    """Returns a small search of the problem.

    Args:
        **changes: Arguments of JointNAS that replace the defaults of the problem.
    """
    from fbnetv3.search import JointNAS

    arguments: dict[str, Any] = {
        "statistics": statistics,
        "constraints": [Constraint("macs", upper=UPPER)],
        "pool_size": 512,
        "batch_size": 8,
        "iterations": 2,
        "finalists": 3,
        "evolution": evolution_settings(),
        "seed": 0,
    }
    return JointNAS(space(), **{**arguments, **changes})


def summary(result: Any) -> list[tuple[Any, ...]]:
    """Returns the values in which two equal searches agree bit for bit."""
    return [
        (t.number, t.id, t.batch, t.stage, t.state, t.score, t.predicted, t.max_epochs, t.reports)
        for t in result.trials
    ]
