"""Writes tables and a plot of results.jsonl: regret and mean rank with bootstrap intervals."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap, rankdata

from fbnetv3.io import atomic_write
from projects.search_quality.methods import METHODS, PEERS

FOLDER = Path(__file__).parent
STEP, MARKS = 8, (48, 96, 144, 192)
"""Evaluations between two regrets of a search, and numbers of evaluations of the tables."""
DEFAULT = "JointNAS"
Floats = npt.NDArray[np.float64]
Runs = dict[str, dict[int, list[float]]]
"""Regrets after 8, 16, ... evaluations, by method and seed."""


def by_problem(rows: list[dict[str, Any]]) -> dict[str, Runs]:
    """Returns the regrets of each problem from lines such as those of results.jsonl."""
    runs: dict[str, Runs] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        # a search that ran out of candidates keeps its last regret
        curve = row["regret"] + [row["regret"][-1]] * (MARKS[-1] // STEP - len(row["regret"]))
        runs[row["problem"]][row["method"]][row["seed"]] = curve
    return runs


def interval(values: Floats) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the mean."""
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    result = bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0))
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def ranks(runs: Runs, mark: int) -> tuple[dict[str, Floats], int]:
    """Returns the ranks of the default and the peers for each common seed, and the number of seeds.

    A rank compares methods on the same seed, so peers with fewer seeds than the default have none.

    Args:
        runs: Regrets of one problem.
        mark: Number of evaluations after which the methods are ranked.
    """
    seeds = max(1, len(runs.get(DEFAULT, {})))
    names = [m for m in (DEFAULT, *PEERS) if len(runs.get(m, {})) >= seeds]
    common = sorted(set.intersection(*(set(runs[m]) for m in names))) if names else []
    if not common:
        return {}, 0
    regrets = np.array([[runs[m][s][mark // STEP - 1] for s in common] for m in names])
    return dict(zip(names, rankdata(regrets, axis=0), strict=True)), len(common)


def difference(runs: Runs, method: str) -> str:
    """Returns the mean final regret of a variant minus that of the default, paired by seed."""
    default, variant = runs.get(DEFAULT, {}), runs[method]
    seeds = sorted(set(default) & set(variant))
    gaps = np.array([variant[seed][-1] - default[seed][-1] for seed in seeds])
    if not len(gaps):
        return "-"
    low, high = interval(gaps)
    return f"{gaps.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def table(name: str, runs: Runs) -> str:
    """Returns the Markdown tables of a problem: peers by mean rank, then variants."""
    ranked, common = ranks(runs, MARKS[-1])
    rows, variants = [], []
    for method in (m for m in METHODS if m in runs):
        curves = np.array(list(runs[method].values()))
        cells = " | ".join(_cells(curves))
        if method not in (DEFAULT, *PEERS):
            variants.append(f"| {method} | {cells} | {difference(runs, method)} | {len(curves)} |")
            continue
        # methods without a rank follow the ranked ones
        order, rank = 99 + curves[:, -1].mean(), "-"
        if method in ranked:
            low, high = interval(ranked[method])
            order = ranked[method].mean()
            rank = f"{order:.1f} ({low:.1f} to {high:.1f})"
        label = f"**{method}**" if method == DEFAULT else method
        rows.append((order, f"| {label} | {cells} | {rank} | {len(curves)} |"))
    parts = [
        f"### {name}",
        f"Ranks over {common} seeds that all ranked methods have.",
        "\n".join([_head("method", "mean rank at 192"), *(text for _, text in sorted(rows))]),
        verdict(runs, list(ranked)),
    ]
    if variants:
        parts.append("\n".join([_head("variant", "regret minus the default's"), *variants]))
    return "\n\n".join(parts) + "\n"


def _head(first: str, last: str) -> str:
    return f"| {first} | 48 | 96 | 144 | 192 | {last} | seeds |\n" + "|---" * 7 + "|"


def _cells(curves: Floats) -> list[str]:
    """Returns the mean regret after each number of evaluations, the last with its interval."""
    means = [curves[:, mark // STEP - 1].mean() for mark in MARKS]
    low, high = interval(curves[:, -1])
    return [*(f"{m:.3f}" for m in means[:-1]), f"{means[-1]:.3f} ({low:.3f} to {high:.3f})"]


def verdict(runs: Runs, ranked: list[str]) -> str:
    """Returns a line that compares the default with the peer of the lowest final regret."""
    last, half = MARKS[-1] // STEP - 1, MARKS[1] // STEP - 1
    peers = {m: np.mean([c[last] for c in runs[m].values()]) for m in PEERS if m in ranked}
    if not peers or DEFAULT not in runs:
        return ""
    best = min(peers, key=lambda m: peers[m])
    default = np.array(list(runs[DEFAULT].values())).mean(0)
    reached = np.flatnonzero(default <= peers[best])
    after = f"reaches that of the peer after {STEP * (reached[0] + 1)} evaluations"
    if not len(reached):
        after = "does not reach that of the peer"
    return (
        f"Best peer by mean regret at 192: {best} ({peers[best]:.3f}). The default has "
        f"{default[half]:.3f} at 96 and {default[last]:.3f} at 192; its regret {after}."
    )


def plot(problems: dict[str, Runs], path: Path) -> None:
    """Draws mean regret against evaluations, with one panel per problem."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(problems), figsize=(4.2 * len(problems), 4.2), squeeze=False, layout="constrained"
    )
    colours = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    lines: dict[str, Any] = {}
    for axis, (name, runs) in zip(axes[0], problems.items(), strict=True):
        for i, method in enumerate(METHODS):
            if method not in runs:
                continue
            mean = np.array(list(runs[method].values())).mean(0)
            x = STEP * np.arange(1, len(mean) + 1)
            style = "-" if method.startswith(DEFAULT) else "--"
            width = 2.6 if method == DEFAULT else 1.2
            (line,) = axis.plot(x, mean, style, color=colours[i], lw=width, label=method)
            lines.setdefault(method, line)
        axis.set(title=name, yscale="log", xlabel="evaluations", xticks=MARKS)
    axes[0, 0].set_ylabel("mean regret (0 best known, 1 median of random)")
    figure.legend(
        lines.values(), lines.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize=8
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(rows: list[dict[str, Any]], versions: str) -> None:
    """Writes results.md and regret.png next to this file, and prints results.md.

    Args:
        rows: Lines of results.jsonl.
        versions: Versions of the compared packages.
    """
    problems = by_problem(rows)
    text = "# Results\n\nMade by `compare.py report`; versions: " + versions + ".\n\n"
    text += "Mean regret after 48 to 192 evaluations; in brackets 95 % bootstrap intervals.\n\n"
    text += "\n".join(table(name, runs) for name, runs in problems.items())
    with atomic_write(FOLDER / "results.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    plot(problems, FOLDER / "regret.png")
    print(text)
