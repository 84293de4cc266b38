"""Writes the tables of peers.jsonl: regrets, ranks and CPU seconds of each method by problem.

    python -m projects.search_quality.ranking

The default is JointNAS with its default settings. Ranks are those among the methods with at least
as many seeds as the default. Methods with fewer seeds have no rank; they are compared with the
default on the seeds that both have.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fbnetv3.io import atomic_write
from projects.search_quality.compare import division_of, finished_runs, versions
from projects.search_quality.methods import METHODS
from projects.search_quality.report import (
    DEFAULT,
    MARKS,
    STEP,
    Floats,
    Runs,
    by_problem,
    interval,
    ranks,
)

RESULTS = Path(__file__).with_name("peers.jsonl")
_QUESTION = (
    "Does the default have the lowest mean regret, on the seeds that it shares with each peer? "
    "`level`: a peer has the same regret, and none a lower one. `not shown`: a peer has a lower "
    "regret, but the interval of the paired difference contains 0. `no`: the interval excludes 0. "
    "These peers follow, each with its regret, that of the default, and the number of shared "
    "seeds.\n"
)
_AGAINST = (
    "The default against each peer, on the problems and seeds that both have: the share of "
    "searches in which the default has the lower regret (a tie counts half), and the peer's regret "
    "minus that of the default.\n"
)
_HEAD = [
    *("method", *(str(mark) for mark in MARKS)),
    *("mean ranks", "default better at 96, 192", "CPU s per batch", "seeds"),
]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(head: list[str]) -> str:
    return "|" + "---|" * len(head)


def cpu_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Returns the mean CPU seconds per batch after the first one, by problem and method."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        later = row["cpu_seconds"][1:]
        seconds.setdefault((row["problem"], row["method"]), []).append(float(np.mean(later)))
    return {key: float(np.mean(values)) for key, values in seconds.items()}


def regrets_at(runs: Runs, method: str, mark: int) -> dict[int, float]:
    """Returns the regrets of a method after ``mark`` evaluations, by seed."""
    return {seed: curve[mark // STEP - 1] for seed, curve in runs[method].items()}


def wins(runs: Runs, method: str, mark: int) -> str:
    """Returns on how many common seeds the default is better, such as ``7 of 10 (1 equal)``."""
    default, peer = (regrets_at(runs, name, mark) for name in (DEFAULT, method))
    gaps = [default[seed] - peer[seed] for seed in sorted(set(default) & set(peer))]
    ties = sum(gap == 0 for gap in gaps)
    text = f"{sum(gap < 0 for gap in gaps)} of {len(gaps)}"
    return f"{text} ({ties} equal)" if ties else text


def _with_interval(values: Floats) -> str:
    """Returns the mean with its 95 % interval; a single value has no interval."""
    low, high = interval(values)
    return f"{values.mean():.3f}" + (f" ({low:.3f} to {high:.3f})" if len(values) > 1 else "")


def table(name: str, runs: Runs, cpu: dict[tuple[str, str], float]) -> str:
    """Returns the Markdown table of a problem, sorted by the mean regret at 192."""
    ranked = {mark: ranks(runs, mark)[0] for mark in MARKS}
    lines = []
    for method in (m for m in METHODS if m in runs):
        cells = [f"**{method}**" if method == DEFAULT else method]
        for mark in MARKS:
            values = np.array(list(regrets_at(runs, method, mark).values()))
            cells.append(_with_interval(values))
        means = [f"{ranked[m][method].mean():.1f}" if method in ranked[m] else "-" for m in MARKS]
        cells.append(", ".join(means) if method in ranked[MARKS[-1]] else "-")
        peer = method != DEFAULT and DEFAULT in runs
        cells.append(f"{wins(runs, method, 96)}, {wins(runs, method, 192)}" if peer else "")
        cells += [f"{cpu[name, method]:.1f}", str(len(runs[method]))]
        lines.append((values.mean(), _row(cells)))
    rows = [text for _, text in sorted(lines)]
    return "\n".join([f"### {name}\n", _row(_HEAD), _rule(_HEAD), *rows]) + "\n"


def first(runs: Runs, mark: int) -> str:
    """Returns whether the default has the lowest mean regret, and the peers that equal or beat it.

    A peer is ahead if the interval of its regret minus the default's lies below 0. A single seed
    has no interval.
    """
    better = []
    for method in (m for m in runs if m != DEFAULT):
        own, other = paired({"": runs}, method, mark)
        gap = other - own
        if len(gap) and gap.mean() <= 0:
            is_ahead = len(gap) > 1 and interval(gap)[1] < 0
            text = f"{method} {other.mean():.3f} and {own.mean():.3f} ({len(gap)})"
            better.append((not is_ahead, gap.mean(), text))
    if not better:
        default = list(regrets_at(runs, DEFAULT, mark).values())
        return f"yes, {np.mean(default):.3f}"
    is_behind = any(not is_undecided for is_undecided, _, _ in better)
    word = "no" if is_behind else "not shown" if min(gap for _, gap, _ in better) < 0 else "level"
    return f"{word}: " + "; ".join(text for _, _, text in sorted(better))


def paired(problems: dict[str, Runs], method: str, mark: int) -> Floats:
    """Returns the regrets of the default and of a peer, (2, pairs), on all common searches."""
    pairs = []
    for runs in (r for r in problems.values() if DEFAULT in r and method in r):
        default, peer = (regrets_at(runs, name, mark) for name in (DEFAULT, method))
        pairs += [(default[seed], peer[seed]) for seed in sorted(set(default) & set(peer))]
    return np.array(pairs).reshape(-1, 2).T


def against(problems: dict[str, Runs]) -> str:
    """Returns a table of the default against each peer over all problems.

    Of two methods, the one with the lower regret in more than half of the searches has the lower
    mean rank.
    """
    head = ["peer", "problems", "searches"]
    columns = ("share better", "regret minus default's")
    head += [f"{column} at {mark}" for column in columns for mark in (96, 192)]
    lines = [_row(head), _rule(head)]
    for method in (m for m in METHODS if m != DEFAULT):
        regrets = {mark: paired(problems, method, mark) for mark in (96, 192)}
        if not regrets[96].size:
            continue
        gaps = {mark: peer - default for mark, (default, peer) in regrets.items()}
        shares = [_with_interval((np.sign(gap) + 1) / 2) for gap in gaps.values()]
        count = sum(DEFAULT in runs and method in runs for runs in problems.values())
        cells = [method, str(count), str(len(gaps[96])), *shares]
        lines.append(_row([*cells, *(_with_interval(gap) for gap in gaps.values())]))
    return "\n".join(lines) + "\n"


def summary(problems: dict[str, Runs]) -> str:
    """Returns a table of whether the default has the lowest mean regret at 96 and 192."""
    head = ["problem", "first at 96?", "first at 192?", "seeds of the default", "peers"]
    lines = [_row(head), _rule(head)]
    for name, runs in problems.items():
        if DEFAULT not in runs:
            continue
        counts = [str(len(runs[DEFAULT])), str(len(runs) - 1)]
        lines.append(_row([f"`{name}`", first(runs, 96), first(runs, 192), *counts]))
    return "\n".join(lines) + "\n"


def text_of(rows: list[dict[str, Any]], division: tuple[int, int]) -> str:
    """Returns the tables of the searches with one division into batches.

    Args:
        rows: Lines of peers.jsonl.
        division: Number of evaluations per batch, and number of parts of the first batch.
    """
    rows = [row for row in rows if division_of(row) == division]
    problems, cpu = by_problem(rows), cpu_of(rows)
    batch, parts = division
    return "\n".join(
        [
            f"## Batches of {batch}{f', the first in {parts} parts' if parts > 1 else ''}\n",
            _QUESTION,
            summary(problems),
            _AGAINST,
            against(problems),
            *(table(name, runs, cpu) for name, runs in problems.items()),
        ]
    )


def main() -> None:
    """Writes peers.md next to the results and prints it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of finished searches")
    arguments = parser.parse_args()
    rows = finished_runs(arguments.results)
    text = f"# Peers\n\nMade by `ranking.py`; versions: {versions()}. "
    text += "NePS runs in an environment of its own (`peers.txt`).\n\n"
    text += "Mean regret after the stated numbers of evaluations, with 95 % bootstrap intervals. "
    text += "CPU seconds are those of one thread for each batch (or part) after the first.\n\n"
    divisions = sorted({division_of(row) for row in rows}, reverse=True)
    text += "\n".join(text_of(rows, division) for division in divisions)
    with atomic_write(arguments.results.with_suffix(".md")) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
