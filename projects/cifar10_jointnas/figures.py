"""Draws the figures and prints the tables of README.md from the logs and csv files.

    python -m projects.cifar10_jointnas.figures [search|early_stop|ema|...]...

Without arguments, all parts whose files exist are drawn.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from tabulate import tabulate

from fbnetv3.io import atomic_write
from fbnetv3.search.acquisition.early_stopping import find_early_stop
from fbnetv3.search.storage.batch_log import BatchLog
from projects.cifar10_jointnas import trainings
from projects.cifar10_jointnas.cases import BUDGETS, name_of
from projects.cifar10_jointnas.runs import open_log
from projects.cifar10_jointnas.transfer import SEARCHED_ON

HERE = Path(__file__).parent
KINDS = ("joint", "coarse", "random")
COLOURS = {"joint": "tab:blue", "coarse": "tab:green", "random": "tab:gray"}


class Estimate(NamedTuple):
    """A mean with its 95 % interval by Student's t."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def estimate(values: Sequence[float], overlap: float = 0.0) -> Estimate:
    """Returns the mean of values and its 95 % interval, with NaN bounds for a single value.

    Args:
        values: Values of independent trainings, networks or budgets, or of splits of the same data.
        overlap: Ratio of held-out to training samples of a split, for the variance of overlapping
            splits (Nadeau & Bengio, 2003). 0 for independent values.
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, math.nan, math.nan)
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) * math.sqrt(1 / count + overlap)
    return Estimate(mean, float(mean - half), float(mean + half))


@contextmanager
def picture(name: str, panels: int) -> Iterator[Any]:
    """Yields the axes of a row of panels, and writes NAME.png afterwards."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * panels, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    yield axes
    for panel in axes:
        panel.grid(alpha=0.3)
    with atomic_write(HERE / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def rows_of(name: str) -> list[dict[str, str]]:
    """Returns the rows of a csv that lies beside this file."""
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def search() -> None:
    """Draws the best score against the number of trainings; prints a table of the batches."""
    with picture("search", 2) as (left, right):
        for kind in ("joint", "random"):
            trials = open_log(HERE / kind).search.result().trials
            scores = [t.score or 0.0 for t in trials]
            best = np.maximum.accumulate(scores)
            left.plot(range(1, len(best) + 1), best, color=COLOURS[kind], label=kind)
            macs = [t.statistics["macs"] / 1e6 for t in trials]
            right.plot(macs, scores, ".", color=COLOURS[kind], label=kind, alpha=0.7)
            table = []
            for batch in sorted({t.batch for t in trials}):
                in_batch = np.array([t.score or 0.0 for t in trials if t.batch == batch])
                row = [kind, batch, len(in_batch), np.median(in_batch), in_batch.max()]
                table.append(row)
            print(tabulate(table, ["search", "batch", "trials", "median", "best"], "github", ".2f"))
        left.set(xlabel="trainings", ylabel="best top-1 so far, early epoch (%)")
        right.set(xlabel="M multiply-adds", ylabel="top-1, early epoch (%)")
        left.legend(frameon=False)
        right.legend(frameon=False)


def early_stop() -> None:
    """Draws the rank correlation of early scores with final ones (Fig. 3).

    The first panel shows the first batch of the search, the second one that of the pilot, which has
    twice as many epochs.
    """
    runs = {"joint": "5 epochs", "pilot": "10 epochs (pilot)"}
    with picture("early_stop", len(runs)) as panels:
        for axes, (name, title) in zip(panels, runs.items(), strict=True):
            first = [t for t in BatchLog(HERE / name).read().trials if t.batch == 0]
            reports = [t.reports for t in first if t.state == "complete"]
            stop = find_early_stop(reports, 0.92)
            assert stop is not None
            whole = [
                float(
                    stats.spearmanr([r[e] for r in reports], [final_score(r) for r in reports])[0]
                )
                for e in stop.epochs
            ]
            for label, line in ((f"all {len(reports)}", whole), ("better half", stop.correlation)):
                axes.plot(stop.epochs, line, marker=".", label=label)
                print(f"{title}, {label}: {', '.join(f'{v:.2f}' for v in line)}")
            print(f"{title}: stop after epoch {stop.epoch or stop.epochs[-1]}")
            axes.axhline(0.92, color="gray", linewidth=0.8)
            axes.set(xlabel="epoch", ylabel="rank correlation with the last epoch", title=title)
            axes.legend(frameon=False)


def final_score(reports: Mapping[int, float]) -> float:
    """Returns the score after the last epoch."""
    return reports[max(reports)]


def ema() -> None:
    """Draws the mean scores of averaged and raw weights during training (Fig. 6)."""
    rows = trainings.read(HERE / "finals.csv")
    epochs = sorted({r.epoch for r in rows})
    cases = sorted({r.case for r in rows})

    def means(key: str, epoch: float) -> list[float]:
        groups = [[r for r in rows if (r.case, r.epoch) == (c, epoch)] for c in cases]
        return [float(np.mean([getattr(r, key) for r in group])) for group in groups if group]

    raw = {e: means("top1", e) for e in epochs}
    averaged = {e: means("top1_ema", e) for e in epochs}
    lead = [estimate(np.subtract(averaged[e], raw[e]).tolist()) for e in epochs]
    with picture("ema", 2) as (left, right):
        for label, scores in (("raw", raw), ("EMA", averaged)):
            left.plot(epochs, [np.mean(scores[e]) for e in epochs], marker=".", label=label)
        left.set(xlabel="epoch", ylabel="top-1, mean of all (%)")
        left.legend(frameon=False)
        right.plot(epochs, [x.mean for x in lead], marker=".", color="black")
        right.fill_between(epochs, [x.low for x in lead], [x.high for x in lead], alpha=0.2)
        right.axhline(0, color="gray", linewidth=0.8)
        right.set(xlabel="epoch", ylabel="EMA minus raw (points)")
    print(f"{len(cases)} networks with their recipes, EMA minus raw:")
    print(tabulate([[e, str(x)] for e, x in zip(epochs, lead, strict=True)], tablefmt="github"))


def last(name: str, key: str = "top1_ema") -> dict[tuple[str, int], float]:
    """Returns the scores after the last epoch, by case and seed.

    Args:
        name: Name of a csv of ``trainings.py``.
        key: ``top1`` for raw and ``top1_ema`` for averaged weights.
    """
    rows: dict[tuple[str, int], trainings.Row] = {}
    for row in trainings.read(HERE / name):
        case = row.case, row.seed
        if case not in rows or row.epoch > rows[case].epoch:
            rows[case] = row
    return {case: getattr(row, key) for case, row in rows.items()}


def by_case(scores: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Adds the scores of cases that share a config with another case, see ``cases.py``."""
    by_name = dict(scores)
    for row in rows_of("cases.csv"):
        for (config, seed), value in scores.items():
            if config == row["config"]:
                by_name[row["case"], seed] = value
    return by_name


def differences(scores: dict[tuple[str, int], float], one: str, other: str) -> list[float]:
    """Returns the scores of one case minus those of the other, paired by seed."""
    seeds = sorted({s for case, s in scores if case == one and (other, s) in scores})
    return [scores[one, seed] - scores[other, seed] for seed in seeds]


def _mean_and_deviation(scores: dict[tuple[str, int], float], case: str) -> str:
    values = [v for (name, _), v in scores.items() if name == case]
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}"


def _print_rank_correlation(
    rows: Sequence[Mapping[str, str]], scores: dict[tuple[str, int], float]
) -> None:
    """Prints Kendall's tau between the scores of the search and the means of ``scores``."""
    values = {row["case"]: [v for (c, _), v in scores.items() if c == row["case"]] for row in rows}
    scored = [row for row in rows if row["score"] and row["case"] == row["config"]]
    pairs = [(float(r["score"]), np.mean(values[r["case"]])) for r in scored if values[r["case"]]]
    if len(pairs) > 2:
        tau, p_value = stats.kendalltau(*zip(*pairs, strict=True))
        summary = f"Kendall's tau {tau:.2f} (p {p_value:.3f}, {len(pairs)} candidates)"
        print(f"scores in the search and after full trainings: {summary}")


def finals() -> None:
    """Compares the winners with the best of stage 1 and of random search (Tables 3 and 5)."""
    scores = by_case(last("finals.csv"))
    table = []
    for budget in BUDGETS:
        table.append(
            [
                f"{budget / 1e6:g}M",
                *(_mean_and_deviation(scores, name_of(k, budget)) for k in KINDS),
            ]
        )
    print(tabulate(table, ["budget", *KINDS], "github"))
    for other in KINDS[1:]:
        by_budget = {
            b: differences(scores, name_of("joint", b), name_of(other, b)) for b in BUDGETS
        }
        for budget, values in by_budget.items():
            if any(values):
                difference = f"{estimate(values)}, {len(values)} seeds"
                print(f"joint minus {other}, {budget / 1e6:g}M: {difference}")
            elif values:
                print(f"joint minus {other}, {budget / 1e6:g}M: the same candidate")
        # trainings with the same seed share their images, so the budgets are averaged by seed
        if len({len(values) for values in by_budget.values()}) == 1:
            means = np.mean(list(by_budget.values()), axis=0).tolist()
            difference = f"{estimate(means)}, {len(means)} seeds"
            print(f"joint minus {other}, mean of the budgets: {difference}")
    rows = rows_of("cases.csv")
    macs = {row["case"]: float(row["macs"]) / 1e6 for row in rows}
    _print_rank_correlation(rows, scores)
    with picture("finals", 1) as (axes,):
        for kind in KINDS:
            for (case, _), value in scores.items():
                if case.startswith(kind):
                    axes.plot(macs[case], value, ".", color=COLOURS[kind], alpha=0.5)
            cases = [name_of(kind, b) for b in BUDGETS]
            means = [np.mean([v for (n, _), v in scores.items() if n == c]) for c in cases]
            axes.plot([macs[c] for c in cases], means, color=COLOURS[kind], label=kind)
        axes.set(xlabel="M multiply-adds", ylabel="test top-1 (%)")
        axes.legend(frameon=False)


def pairing() -> None:
    """Prints the scores of the smallest and largest winner with swapped recipes (Table 4)."""
    scores = by_case(last("finals.csv") | last("pairing.csv"))
    small, large = name_of("joint", BUDGETS[0]), name_of("joint", BUDGETS[-1])
    table = []
    for net, original, swapped in (
        ("small", small, "small_net_large_recipe"),
        ("large", large, "large_net_small_recipe"),
    ):
        loss = estimate(differences(scores, original, swapped))
        means = [_mean_and_deviation(scores, case) for case in (original, swapped)]
        table.append([net, *means, str(loss)])
    print(tabulate(table, ["net", "own recipe", "the other's", "own minus other"], "github"))


def pretraining() -> None:
    """Draws Kendall's tau against the number of labels (Fig. 5)."""
    rows = rows_of("pretraining.csv")
    counts = sorted({int(r["labels"]) for r in rows})
    kinds = list(dict.fromkeys(r["predictor"] for r in rows))
    table = []
    with picture("pretraining", len(kinds)) as panels:
        for axes, kind in zip(panels, kinds, strict=True):
            splits = {
                n: [r for r in rows if r["predictor"] == kind and int(r["labels"]) == n]
                for n in counts
            }
            for key, label in (("pretrained", "pre-trained"), ("plain", "not")):
                means = [np.mean([float(r[key]) for r in splits[n]]) for n in counts]
                axes.plot(counts, means, marker=".", label=label)
            axes.set(xlabel="trained candidates", ylabel="Kendall's tau on the rest", title=kind)
            axes.legend(frameon=False)
            for n in counts:
                gains = [float(r["pretrained"]) - float(r["plain"]) for r in splits[n]]
                gain = estimate(gains, overlap=float(splits[n][0]["unseen"]) / n)
                means = [np.mean([float(r[k]) for r in splits[n]]) for k in ("pretrained", "plain")]
                interval = f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
                table.append([kind, n, *(f"{m:.3f}" for m in means), interval])
    head = ["predictor", "labels", "pre-trained", "not pre-trained", "difference"]
    print(tabulate(table, head, "github", disable_numparse=True))


def transfer() -> None:
    """Compares the searched recipe with the plain one, for each network (Table 2).

    The plain recipe has no EMA; the scores of its averaged weights are printed as well.
    """
    scores = last("transfer.csv")
    raw = {(f"{c}_raw", s): v for (c, s), v in last("transfer.csv", "top1").items()}
    names = sorted({case.rpartition("_")[0] for case, _ in scores})
    table = []
    unseen: dict[str, list[float]] = {"plain_raw": [], "plain": []}
    for name in names:
        row = [name, _mean_and_deviation(scores, f"{name}_searched")]
        for kind, means in unseen.items():
            gain = differences(scores | raw, f"{name}_searched", f"{name}_{kind}")
            if name != SEARCHED_ON and gain:
                means.append(float(np.mean(gain)))
            row += [
                _mean_and_deviation(scores | raw, f"{name}_{kind}"),
                str(estimate(gain)) if gain else "",
            ]
        table.append(row)
    head = ["network", "searched", "plain", "searched above", "plain, EMA", "searched above"]
    print(tabulate(table, head, "github"))
    for kind, label in (("plain_raw", "plain"), ("plain", "plain with EMA")):
        gain = unseen[kind]
        difference = f"{estimate(gain)}, {len(gain)} networks" if gain else "none yet"
        print(f"searched minus {label}, on networks that the search did not use: {difference}")


def family() -> None:
    """Draws accuracy against multiply-adds of the family and its peers (Fig. 7)."""
    scores = by_case(last("finals.csv")) | last("family.csv")
    macs = {
        row["case"]: float(row["macs"]) / 1e6
        for name in ("cases.csv", "family_cases.csv")
        for row in rows_of(name)
    }
    mean = {
        case: float(np.mean([v for (c, _), v in scores.items() if c == case]))
        for case in macs
        if any(c == case for c, _ in scores)
    }
    table = [
        [c, macs[c], _mean_and_deviation(scores, c)]
        for c in mean
        if not c.startswith(("coarse", "random"))
    ]
    table.sort(key=lambda row: row[1])
    print(tabulate(table, ["network", "M multiply-adds", "test top-1 (%)"], "github", ".1f"))
    ours = sorted((macs[c], mean[c]) for c in mean if c.startswith(("joint", "scaled")))
    with picture("family", 1) as (axes,):
        axes.plot(*zip(*ours, strict=True), marker=".", color=COLOURS["joint"], label="searched")
        kinds = {"searched": "tab:purple", "plain": "tab:orange", "quarter": "tab:red"}
        for kind, colour in kinds.items():
            peers = sorted((macs[c], mean[c]) for c in mean if c.endswith(f"_{kind}"))
            if peers:
                label = f"peers, {kind} recipe"
                axes.plot(*zip(*peers, strict=True), "x", color=colour, label=label)
        axes.set(xlabel="M multiply-adds", ylabel="test top-1 (%)", xscale="log")
        axes.set_xticks([2, 4, 8, 16, 32], labels=["2", "4", "8", "16", "32"])
        axes.minorticks_off()
        axes.set_ylim(top=97)
        axes.legend(frameon=False, loc="upper left")


PARTS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "search": (search, ("joint", "random")),
    "early_stop": (early_stop, ("joint", "pilot")),
    "finals": (finals, ("finals.csv", "cases.csv")),
    "pairing": (pairing, ("finals.csv", "pairing.csv")),
    "transfer": (transfer, ("transfer.csv",)),
    "family": (family, ("finals.csv", "family.csv", "family_cases.csv")),
    "pretraining": (pretraining, ("pretraining.csv",)),
    "ema": (ema, ("finals.csv",)),
}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)[0]}; allowed: {', '.join(PARTS)}")
    drawable = [n for n, (_, files) in PARTS.items() if all((HERE / f).exists() for f in files)]
    for name in args.parts or drawable:
        print(f"\n## {name}\n")
        PARTS[name][0]()


if __name__ == "__main__":
    main()
