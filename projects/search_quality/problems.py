"""Problems for the comparison of search methods.

``trainings`` is the table of real trainings of ``joint_table.py``. An evaluation is the mean over
its seeds; with one seed, luck would decide which good candidate wins a search. ``synthetic`` has
the paper's space (Table 1, 36 + 6 variables, real MACs) with a synthetic objective and noisy
scores. ``continuous`` has six continuous variables and a best recipe that depends on the
architecture. ``hartmann6`` and ``ackley5`` are textbook functions; half of their variables count as
the architecture, the others as the recipe. ``public_problems.py`` adds problems of published
tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from fbnetv3.search import Constraint, FloatRange, SearchSpace
from fbnetv3.search.space.constraints import Costs
from fbnetv3.search.space.feasible import FeasibleSpace
from fbnetv3.search.space.parameters import Levels
from projects.search_quality import public_problems
from projects.search_quality.joint_table import JointTable, load_table
from projects.search_quality.problem import Configs, Floats, Problem, random_levels


class _PaperLike:
    """A synthetic objective over the variables scaled to [0, 1], in percent.

    Each architecture variable has an effect with diminishing returns, and some pairs interact. Each
    recipe variable has a best value that depends on the size of the network, and some deviations
    from these values interact.

    Args:
        space: Space of the objective.
        seed: Random seed of all coefficients.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._space = space
        self._arch = space.indices_of_part("architecture")
        self._recipe = space.indices_of_part("recipe")
        a, r = len(self._arch), len(self._recipe)
        self._gain = random.exponential(1.0, a) * (1 - 2 * (random.random(a) < 0.25))
        self._bend = random.uniform(0.5, 3.0, a)
        self._pairs = random.normal(0, 0.5, (a, a)) * (random.random((a, a)) < 0.1)
        self._target = random.uniform(0.25, 0.75, r)
        self._shift = random.normal(0, 0.25, r)
        self._depth = random.uniform(1.0, 4.0, r)
        self._mix = random.normal(0, 1.0, (r, r)) * (random.random((r, r)) < 0.3)

    def __call__(self, configs: Configs) -> Floats:
        levels = self._space.levels(configs)
        units = np.stack(
            [p.to_unit_interval(levels[:, i]) if p.is_ordered else levels[:, i] / max(1, p.size - 1)
             for i, p in enumerate(self._space.parameters)], 1
        )  # fmt: skip
        arch, recipe = units[:, self._arch], units[:, self._recipe]
        gains = (1 - np.exp(-self._bend * arch)) / (1 - np.exp(-self._bend)) @ self._gain
        pairs = np.einsum("ni,ij,nj->n", arch - 0.5, self._pairs, arch - 0.5)
        size = arch.mean(1, keepdims=True) - 0.5
        off = recipe - np.clip(self._target + 2 * self._shift * size, 0.05, 0.95)
        bowls = -(off**2 / (0.1 + np.abs(off))) @ self._depth
        mixed = np.einsum("ni,ij,nj->n", off, self._mix, off)
        return np.asarray(70 + 0.5 * (gains + pairs + 1.5 * bowls + mixed))


def _synthetic() -> Problem:
    from fbnetv3.search.fbnet.space import FBNetSpace

    whole = FBNetSpace.from_yaml("fbnetv3")
    space, truth = whole.space, _PaperLike(whole.space, seed=3)
    middle = space.canonical((space.sizes[None] - 1) // 2)
    random = np.random.default_rng(0)
    sample = space.canonical(random.integers(0, space.sizes, (2000, len(space))))
    spread = float(truth(space.configs(sample)).std())
    statistics = whole.statistics(num_classes=1000)
    assert statistics is not None
    limit = float(np.median(statistics(space.configs(sample))["macs"]))
    return Problem(
        "synthetic",
        space,
        truth,
        statistics,
        (Constraint("macs", upper=limit),),
        0.2 * spread,
        space.configs(middle)[0],
    )


def _continuous_truth(configs: Configs) -> Floats:
    names = ("width", "depth", "lr", "decay", "mixup", "momentum")
    w, d, lr, decay, mixup, m = np.array([[c[n] for n in names] for c in configs]).T
    log_lr, log_decay = np.log10(lr), np.log10(decay)
    size = np.log(w) + 0.6 * np.log(d)
    capacity = 8 * (1 - np.exp(-1.2 * (size + 1)))
    # wide networks and a high momentum need a lower lr, large networks more regularisation
    step = (log_lr + 1.2 + 0.5 * np.log(w) + 0.8 * np.log(10 * (1 - m)) / np.log(10)) / 0.35
    regular = (log_decay + 4 - 0.8 * size) / 0.8 + (mixup - 0.15) / 0.3
    shape = (np.log(d) - 0.8 * np.log(w)) / 0.6
    loss = 3 * (1 - np.exp(-(step**2) / 2)) + 1.2 * (1 - np.exp(-(regular**2) / 2))
    ripple = 0.25 * np.cos(5 * step) * np.exp(-np.abs(step) / 2)
    return np.asarray(
        80 + capacity - loss - 0.3 * shape**2 + ripple - 2 * (m - 0.9) ** 2 - (mixup - 0.2) ** 2
    )


def _continuous() -> Problem:
    def statistics(configs: Configs) -> dict[str, Floats]:
        return {"macs": np.array([c["width"] ** 2 * c["depth"] for c in configs])}

    space = SearchSpace(
        [
            FloatRange("width", 0.25, 4.0, log=True, part="architecture"),
            FloatRange("depth", 0.25, 4.0, log=True, part="architecture"),
            FloatRange("lr", 1e-3, 1.0, log=True),
            FloatRange("decay", 1e-6, 1e-2, log=True),
            FloatRange("mixup", 0.0, 0.6),
            FloatRange("momentum", 0.5, 0.99),
        ]
    )
    usual = {"width": 1.0, "depth": 1.0, "lr": 0.1, "decay": 1e-5, "mixup": 0.2, "momentum": 0.9}
    limit = Constraint("macs", upper=2.0)
    return Problem("continuous", space, _continuous_truth, statistics, (limit,), 0.0, usual)


def _unit_space(count: int, architecture: int) -> SearchSpace:
    parts = ["architecture"] * architecture + ["recipe"] * (count - architecture)
    return SearchSpace([FloatRange(f"x{i}", 0.0, 1.0, part=p) for i, p in enumerate(parts)])


def _points(configs: Configs) -> Floats:
    return np.array([list(c.values()) for c in configs], dtype=np.float64)


_HARTMANN_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14],
     [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)  # fmt: skip
_HARTMANN_P = 1e-4 * np.array(
    [[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
     [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]]
)  # fmt: skip


def _hartmann(configs: Configs) -> Floats:
    x = _points(configs)[:, None]
    inner = (_HARTMANN_A * (x - _HARTMANN_P) ** 2).sum(2)
    return np.asarray(np.exp(-inner) @ np.array([1.0, 1.2, 3.0, 3.2]))


def _ackley(configs: Configs) -> Floats:
    x = 20 * _points(configs) - 8  # the optimum is not in the middle of the range
    root, wave = np.sqrt((x**2).mean(1)), np.cos(2 * np.pi * x).mean(1)
    return np.asarray(20 * np.exp(-0.2 * root) + np.exp(wave) - 20 - np.e)


def _textbook(name: str, count: int, truth: Callable[[Configs], Floats], best: float) -> Problem:
    usual = {f"x{i}": 0.5 for i in range(count)}
    return Problem(name, _unit_space(count, count // 2), truth, usual=usual, best=best)


def _trainings() -> Problem:
    table = JointTable(load_table(), seed=None)
    sizes = table.space.sizes
    usual = table.space.configs(table.space.canonical((sizes[None] - 1) // 2))[0]
    limit = float(np.quantile(table.table.macs, 0.9))
    allowed = table.table.macs <= limit
    return Problem(
        "trainings",
        table.space,
        table.true_score,
        table.statistics,
        (Constraint("macs", upper=limit),),
        table.noise,
        usual,
        float(table.table.truth[allowed].max()),
        lambda configs, random: np.array([table.curve(config)[-1] for config in configs]),
    )


_MAKERS: dict[str, Callable[[], Problem]] = {
    "trainings": _trainings,
    "synthetic": _synthetic,
    "continuous": _continuous,
    "hartmann6": lambda: _textbook("hartmann6", 6, _hartmann, 3.32237),
    "ackley5": lambda: _textbook("ackley5", 5, _ackley, 0.0),
    **public_problems.MAKERS,
}
NAMES = tuple(_MAKERS)
PUBLIC = tuple(public_problems.MAKERS)
"""Problems that need published files; ``public_tables.py`` states where to get them."""
COMMITTED = tuple(name for name in NAMES if name not in PUBLIC)
"""Problems that need no file but those of this repository."""


@cache
def get(name: str) -> Problem:
    """Returns the problem with a name of ``NAMES``."""
    return _MAKERS[name]()


REFERENCES = Path(__file__).with_name("references.json")
"""Median and best scores of the problems, by name."""


def reference(name: str) -> tuple[float, float]:
    """Returns the median true score of random candidates (regret 1) and the best known (regret 0).

    Both are stored in references.json when they are first computed.
    """
    known = json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}
    if name not in known:
        known[name] = find_reference(get(name))
        REFERENCES.write_text(json.dumps(known, indent=2) + "\n")
    median, best = known[name]
    return median, best


def find_reference(problem: Problem) -> tuple[float, float]:
    """Returns the median true score of random candidates and the best known one.

    An unknown best score is estimated by evolution on the true scores.
    """
    from fbnetv3.search.acquisition.fine import EvolutionSettings, evolve

    space = problem.space
    feasible = FeasibleSpace(Costs(space, problem.statistics), tuple(problem.constraints))

    def score(levels: Levels) -> Floats:
        return problem.truth(space.configs(levels)) if len(levels) else np.zeros(0)

    random = np.random.default_rng(99)
    sample = random_levels(problem, 2000, random)
    median = float(np.median(score(sample)))
    if problem.best is not None:
        return median, problem.best
    settings = EvolutionSettings(patience=15, max_generations=150)
    tops = [
        evolve(
            feasible,
            feasible.with_statistics(sample[i * 400 : (i + 1) * 400]),
            score,
            settings,
            np.random.default_rng([99, i]),
        ).scores[0]
        for i in range(3)
    ]
    return median, float(max(tops))
