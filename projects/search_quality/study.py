"""The command line and the table of comparisons of searches after two numbers of evaluations."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from projects.search_quality.compare import finished_runs, run_missing, versions

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A comparison of methods on problems; each finished search is a line of a file.

    Attributes:
        about: First line of the help text.
        results: File of the finished searches.
        problems: Names of the problems, in the order of the table.
        methods: Names of the methods; ``JointNAS`` is compared with each of the others.
        at: The two numbers of evaluations after which a search is judged.
        figure: Key of a row whose value has the figures of merit after both numbers of evaluations.
        higher_is_better: Whether the highest figure is the best.
        shares: Keys of a row with shares, in [0, 1], which become further columns of the table.
    """

    about: str
    results: Path
    problems: Sequence[str]
    methods: Sequence[str]
    at: tuple[int, int]
    figure: str
    higher_is_better: bool
    shares: tuple[str, ...] = ()

    def table(self, rows: Sequence[Row]) -> str:
        """Returns the means over the seeds as a table in Markdown."""
        early, late = self.at
        head = ["problem", "method", "seeds", f"at {early}", f"at {late}"]
        head += [f"JointNAS better at {late}", *self.shares, "CPU seconds"]
        lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
        for problem in self.problems:
            runs_of = {
                m: {r["seed"]: r for r in rows if (r["problem"], r["method"]) == (problem, m)}
                for m in self.methods
            }
            for method, runs in runs_of.items():
                if runs:
                    cells = self._cells(method, runs, runs_of["JointNAS"])
                    lines.append(f"| {' | '.join([f'`{problem}`', method, *cells])} |")
        return "\n".join(lines)

    def _cells(self, method: str, runs: dict[int, Row], ours: dict[int, Row]) -> list[str]:
        """Returns the cells of a method on a problem, from its rows and JointNAS's by seed."""
        early, late = np.mean([r[self.figure] for r in runs.values()], 0)
        sign = 1 if self.higher_is_better else -1
        both = [seed for seed in runs if seed in ours]
        wins = sum(sign * (ours[s][self.figure][1] - runs[s][self.figure][1]) > 0 for s in both)
        against = "" if method == "JointNAS" else f"{wins} of {len(both)}"
        shares = [f"{np.mean([r[key] for r in runs.values()]):.0%}" for key in self.shares]
        seconds = f"{np.mean([r['seconds'] for r in runs.values()]):.0f}"
        return [str(len(runs)), f"{early:.3f}", f"{late:.3f}", against, *shares, seconds]

    def main(self, run_one: Callable[[str, str, int], Row]) -> None:
        """Runs the command line.

        Args:
            run_one: Function of problem, method and seed that runs a search and returns its row.
        """
        arguments = self._arguments()
        rows = finished_runs(Path(arguments.results))
        if arguments.do == "report":
            print(self.table(rows))
            return
        print(versions())
        known = {(row["problem"], row["method"], row["seed"]) for row in rows}
        run_missing(arguments, known, run_one, lambda row: row[self.figure])

    def _arguments(self) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.about)
        add = parser.add_argument
        add("do", choices=("run", "report"), help="run searches, or print the table of all of them")
        add("--problems", nargs="+", default=list(self.problems), help="problems to run")
        add("--methods", nargs="+", default=list(self.methods), help="methods to run")
        add("--seeds", type=int, default=10, help="searches per problem and method")
        add("--first-seed", type=int, default=0, help="seed of the first search")
        add("--results", default=str(self.results), help="file of the finished searches")
        return parser.parse_args()
