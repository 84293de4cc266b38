"""Further problems, on which the division of a search's first batches was chosen and confirmed.

They are three problems of ``problems.py``, textbook functions, and problems of this file: a narrow
ridge of learning rates, the corner of a box, choices that interact under noise, variables with
conditions, and trainings of small networks on handwritten digits, interpolated by trees. The number
at the end of the name of a textbook function is its dimension; after ``corner``, ``choices`` and
``conditions`` it is the seed of the coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from fbnetv3.search import Choice, Constraint, FloatRange, IntRange, SearchSpace, When
from projects.search_quality import problems
from projects.search_quality.problems import Configs, Floats, Problem, find_reference

TUNED = (
    "hartmann6", "ackley5", "continuous", "rosenbrock4", "styblinski8", "ridge", "corner0",
    "choices0", "conditions0", "digits",
)  # fmt: skip
"""Problems on which the division was chosen."""
CONFIRMED = (
    "michalewicz5", "shekel4", "dixon6", "griewank5", "powell8", "hartmann3", "corner1", "corner2",
    "choices1", "choices2", "conditions1",
)  # fmt: skip
"""Problems on which the choice was confirmed."""


def _points(configs: Configs) -> Floats:
    return np.array([list(c.values()) for c in configs], dtype=np.float64)


def _values(configs: Configs, *names: str) -> Floats:
    return np.array([[c[name] for name in names] for c in configs], dtype=np.float64).T


def _units(space: SearchSpace, configs: Configs) -> Floats:
    """Returns the ordered variables in [0, 1], (candidates, ordered variables)."""
    levels = space.levels(configs)
    ordered = [(i, p) for i, p in enumerate(space.parameters) if p.is_ordered]
    return np.stack([p.to_unit_interval(levels[:, i]) for i, p in ordered], 1)


def _rosenbrock(u: Floats) -> Floats:
    x = -5 + 15 * u
    return -np.log1p((100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1))


def _styblinski(u: Floats) -> Floats:
    x = -5 + 10 * u
    return np.asarray(-0.5 * (x**4 - 16 * x**2 + 5 * x).sum(1))


def _michalewicz(u: Floats) -> Floats:
    x, i = np.pi * u, np.arange(1, 6)
    return np.asarray((np.sin(x) * np.sin(i * x**2 / np.pi) ** 20).sum(1))


def _shekel(u: Floats) -> Floats:
    rows = [[4, 1, 8, 6, 3, 2, 5, 8, 6, 7], [4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6]]
    b = np.array([1, 2, 2, 4, 4, 6, 3, 7, 5, 5]) / 10
    square = ((10 * u[:, :, None] - np.array(rows * 2)[None]) ** 2).sum(1)
    return np.asarray((1 / (square + b)).sum(1))


def _dixon(u: Floats) -> Floats:
    x, i = -10 + 20 * u, np.arange(2, 7)
    return -np.log1p((x[:, 0] - 1) ** 2 + (i * (2 * x[:, 1:] ** 2 - x[:, :-1]) ** 2).sum(1))


def _griewank(u: Floats) -> Floats:
    x, i = -60 + 100 * u, np.sqrt(np.arange(1, 6))
    return np.asarray(-((x**2).sum(1) / 400 - np.cos(x / i).prod(1) + 1))


def _powell(u: Floats) -> Floats:
    a, b, c, d = np.moveaxis((-4 + 9 * u).reshape(len(u), 2, 4), 2, 0)
    terms = (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4
    return -np.log1p(terms.sum(1))


def _hartmann3(u: Floats) -> Floats:
    a = np.array([[3, 10, 30], [0.1, 10, 35]] * 2)
    p = np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])
    inner = (a * (u[:, None] - 1e-4 * p) ** 2).sum(2)
    return np.asarray(np.exp(-inner) @ np.array([1.0, 1.2, 3.0, 3.2]))


def _ridge() -> Problem:
    """Returns a problem whose best learning rate depends on width, depth, batch size, optimizer."""
    space = SearchSpace(
        [
            IntRange("depth", 2, 12, part="architecture"),
            IntRange("width", 16, 256, log=True, part="architecture"),
            IntRange("res", 96, 256, step=16, part="architecture"),
            FloatRange("lr", 1e-4, 1.0, log=True),
            FloatRange("wd", 1e-6, 1e-1, log=True),
            IntRange("batch", 16, 1024, log=True),
            Choice("opt", ("sgd", "adam", "rms")),
        ]
    )

    def statistics(configs: Configs) -> dict[str, Floats]:
        depth, width, res = _values(configs, "depth", "width", "res")
        return {"macs": depth * width**2 * res**2}

    def truth(configs: Configs) -> Floats:
        d, w, r, lr, wd, b = _values(configs, "depth", "width", "res", "lr", "wd", "batch")
        opt = np.array([("sgd", "adam", "rms").index(c["opt"]) for c in configs])
        size = np.log(d) * 0.9 + np.log(w / 16) * 0.8 + np.log(r / 96) * 1.2
        target = np.array([-0.3, -2.0, -1.5])[opt] + 0.5 * np.log10(b / 128)
        target = target - 0.4 * np.log10(w / 64) - 0.15 * (d - 6) / 6
        off = (np.log10(lr) - target) / 0.25
        decay = -3.5 + 0.6 * (size - 2) - 0.3 * np.log10(b / 128)
        off_decay = (np.log10(wd) - decay) / 0.8
        score = 70 + 6 * (1 - np.exp(-0.7 * size)) - 8 * (1 - np.exp(-(off**2) / 2))
        score = score - 0.1 * np.minimum(np.abs(off), 8) - 2 * (1 - np.exp(-(off_decay**2) / 2))
        return score - 0.12 * np.log2(b / 64) ** 2 + np.array([0, 0.4, -0.3])[opt]

    limit = Constraint("macs", upper=6.0 * 64**2 * 160**2)
    return Problem("ridge", space, truth, statistics, (limit,), 0.15)


def _corner(seed: int) -> Problem:
    """Returns a problem of five whole and four real numbers, all best at an end of their range."""
    random = np.random.default_rng([seed, 5])
    whole = [IntRange(f"i{k}", 0, int(random.integers(3, 12)), part="architecture")
             for k in range(5)]  # fmt: skip
    space = SearchSpace([*whole, *(FloatRange(f"f{k}", 0.0, 1.0) for k in range(4))])
    gains, bend = random.exponential(1, 9), random.uniform(0.3, 3, 9)
    is_high = random.random(9) < 0.5
    pairs = random.normal(0, 0.25, (9, 9)) * (random.random((9, 9)) < 0.3)

    def truth(configs: Configs) -> Floats:
        u = _units(space, configs)
        v = np.where(is_high, u, 1 - u)
        gained = ((1 - np.exp(-bend * v)) / (1 - np.exp(-bend))) @ gains
        return gained - np.abs(np.einsum("ni,ij,nj->n", 1 - v, pairs, 1 - v))

    return Problem(f"corner{seed}", space, truth, noise=0.02, best=float(gains.sum()))


def _choices(seed: int) -> Problem:
    """Returns a noisy problem of ten choices, of whose pairs a fifth interact, and four ranges."""
    random = np.random.default_rng([seed, 6])
    choices = [
        Choice(
            f"c{k}",
            tuple(range(int(random.integers(3, 6)))),
            part="architecture" if k < 6 else "recipe",
        )
        for k in range(10)
    ]
    numbers = [FloatRange("f0", 0.0, 1.0), FloatRange("f1", 0.0, 1.0)]
    space = SearchSpace([*choices, *numbers, IntRange("i0", 1, 8), IntRange("i1", 1, 8)])
    effects = [random.normal(0, 1, p.size) * random.exponential(1) for p in choices]
    pairs = {
        (a, b): random.normal(0, 0.7, (choices[a].size, choices[b].size))
        for a in range(10)
        for b in range(a + 1, 10)
        if random.random() < 0.2
    }
    target, shift = random.uniform(0.1, 0.9, 4), random.normal(0, 0.2, 5)

    def truth(configs: Configs) -> Floats:
        levels = space.levels(configs)
        score = sum(effect[levels[:, k]] for k, effect in enumerate(effects))
        score = score + sum(m[levels[:, a], levels[:, b]] for (a, b), m in pairs.items())
        off = _units(space, configs) - target
        off[:, 0] -= shift[np.minimum(levels[:, 0], 4)]
        return np.asarray(score - (4 * off**2).sum(1))

    return Problem(f"choices{seed}", space, truth, noise=0.5)


def _conditions(seed: int) -> Problem:
    """Returns a problem whose variables momentum and beta2 matter for one optimizer each."""
    a = np.random.default_rng([seed, 7]).uniform(0.5, 1.5, 12)
    optimizers, acts = ("sgd", "adam", "lamb"), ("relu", "tanh", "gelu")
    space = SearchSpace(
        [
            IntRange("layers", 1, 6, part="architecture"),
            IntRange("units", 16, 512, log=True, part="architecture"),
            Choice("act", acts, part="architecture"),
            Choice("opt", optimizers),
            FloatRange("lr", 1e-5, 1.0, log=True),
            FloatRange("momentum", 0.0, 0.99, active_if=When("opt", "==", "sgd")),
            FloatRange("beta2", 0.9, 0.9999, active_if=When("opt", "==", "adam")),
            FloatRange("dropout", 0.0, 0.7),
            FloatRange("l2", 1e-8, 1e-1, log=True),
            IntRange("epochs", 5, 100, log=True),
        ]
    )

    def truth(configs: Configs) -> Floats:
        opt = np.array([optimizers.index(c["opt"]) for c in configs])
        act = np.array([acts.index(c["act"]) for c in configs])
        names = ("layers", "units", "lr", "dropout", "l2", "epochs", "momentum", "beta2")
        layers, units, lr, drop, l2, epochs, momentum, beta = _values(configs, *names)
        size = np.log2(units / 16) / 5 + 0.5 * np.log2(layers) / 2.6
        target = np.array([-0.7, -2.8, -2.0])[opt] - 0.25 * (layers - 3) / 3
        off = np.log10(lr) - (target - np.where(opt == 0, 0.8 * momentum, 0))
        score = 3 * a[0] * np.tanh(1.5 * size) - 2.5 * a[1] * np.minimum(off**2, 4)
        score = score - 2 * a[2] * np.maximum(off - 0.5, 0) ** 2 + 0.6 * a[3] * np.log10(epochs)
        score = score - 0.5 * a[4] * np.maximum(layers - 4, 0) * (act == 1)
        score = score - 4 * a[5] * (drop - 0.24 * size) ** 2
        score = score - 0.1 * a[6] * (np.log10(l2) + 4.5 + 0.5 * size) ** 2
        score = score - np.where(opt == 1, 0.2 * a[7] * (np.log10(1 - beta) + 2.5) ** 2, 0)
        return score + np.array([0.1, 0.3, 0])[opt] + np.array([0.15, 0, 0.2])[act]

    return Problem(f"conditions{seed}", space, truth, noise=0.05)


def _digits() -> Problem:
    """Returns a problem of 900 trainings of scikit-learn's MLPs on its digits, with extra trees."""
    from sklearn.ensemble import ExtraTreesRegressor

    acts, solvers = ("relu", "tanh", "logistic"), ("adam", "sgd")
    space = SearchSpace(
        [
            IntRange("h1", 4, 256, log=True, part="architecture"),
            IntRange("h2", 0, 128, step=8, part="architecture"),
            Choice("act", acts, part="architecture"),
            Choice("solver", solvers),
            FloatRange("lr", 1e-5, 1.0, log=True),
            FloatRange("alpha", 1e-7, 10.0, log=True),
            IntRange("batch", 8, 512, log=True),
            IntRange("epochs", 1, 16, log=True),
            FloatRange("momentum", 0.0, 0.99),
        ]
    )

    def features(configs: Configs) -> Floats:
        flags = [[*(c["act"] == act for act in acts), c["solver"] == "sgd"] for c in configs]
        return np.concatenate([_units(space, configs), np.array(flags, dtype=float)], 1)

    quantiles = np.random.default_rng(0)
    order = quantiles.permutation(1797)
    configs = space.configs(space.canonical(space.levels_at(quantiles.random((900, len(space))))))
    scores = [_accuracy(c, order) for c in configs]
    trees = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0)
    trees.fit(features(configs), scores)
    return Problem("digits", space, lambda c: 100 * trees.predict(features(c)), noise=0.7)


def _accuracy(config: dict, order: np.ndarray) -> float:
    """Returns the accuracy, in [0, 1], of a network on the 1,097 digits that did not train it."""
    import warnings

    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    train, test = order[:700], order[700:]
    network = MLPClassifier(
        (config["h1"], config["h2"]) if config["h2"] else (config["h1"],),
        activation=config["act"],
        solver=config["solver"],
        learning_rate_init=config["lr"],
        alpha=config["alpha"],
        batch_size=config["batch"],
        max_iter=config["epochs"],
        momentum=config["momentum"],
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(network.fit(x[train] / 16, y[train]).score(x[test] / 16, y[test]))
        except ValueError:  # diverged
            return 0.1


def _textbook(name: str, count: int, function: Callable[[Floats], Floats], best: float) -> Problem:
    parts = ["architecture"] * (count // 2) + ["recipe"] * (count - count // 2)
    space = SearchSpace([FloatRange(f"x{i}", 0.0, 1.0, part=p) for i, p in enumerate(parts)])
    return Problem(name, space, lambda c: function(_points(c)), best=best)


_MAKERS: dict[str, Callable[[], Problem]] = {
    "rosenbrock4": lambda: _textbook("rosenbrock4", 4, _rosenbrock, 0.0),
    "styblinski8": lambda: _textbook("styblinski8", 8, _styblinski, 8 * 39.16616570377),
    "michalewicz5": lambda: _textbook("michalewicz5", 5, _michalewicz, 4.687658),
    "shekel4": lambda: _textbook("shekel4", 4, _shekel, 10.5364),
    "dixon6": lambda: _textbook("dixon6", 6, _dixon, 0.0),
    "griewank5": lambda: _textbook("griewank5", 5, _griewank, 0.0),
    "powell8": lambda: _textbook("powell8", 8, _powell, 0.0),
    "hartmann3": lambda: _textbook("hartmann3", 3, _hartmann3, 3.86278),
    "ridge": _ridge,
    "digits": _digits,
    **{f"corner{seed}": lambda seed=seed: _corner(seed) for seed in range(3)},
    **{f"choices{seed}": lambda seed=seed: _choices(seed) for seed in range(3)},
    **{f"conditions{seed}": lambda seed=seed: _conditions(seed) for seed in range(2)},
}


@cache
def get(name: str) -> Problem:
    """Returns a problem of ``TUNED`` or ``CONFIRMED``."""
    return _MAKERS[name]() if name in _MAKERS else problems.get(name)


@cache
def reference(name: str) -> tuple[float, float]:
    """Returns the median true score of random candidates (regret 1) and the best known (0)."""
    return find_reference(get(name)) if name in _MAKERS else problems.reference(name)
