"""Runs or resumes a search in its folder, finds winners for other budgets, writes its report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fbnetv3.config import CfgNode
from fbnetv3.config.changes import changes_yaml
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.candidates_file import enqueue_all, read_candidates
from fbnetv3.search.fbnet.candidates_folder import candidates_place
from fbnetv3.search.fbnet.config import SearchSetup, executor_from_config
from fbnetv3.search.fbnet.config_file import read_run_config
from fbnetv3.search.fbnet.datasets import counts_iterations
from fbnetv3.search.fbnet.evaluator import evaluator_from_config
from fbnetv3.search.fbnet.evolve import Budget, evolve_winners
from fbnetv3.search.fbnet.identity import file_hashes, values_affecting_scores
from fbnetv3.search.fbnet.keys import EXTENSIBLE_KEYS, get_search_cfg
from fbnetv3.search.fbnet.opening import (
    build_search,
    open_search,
    plan_lines,
    setup_from_config,
    storage_url,
)
from fbnetv3.search.fbnet.placement import placement_from_config, placement_lines
from fbnetv3.search.fbnet.preflight import check_trainings
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.run_report import write_run_report
from fbnetv3.search.fbnet.search_writers import SearchWriters
from fbnetv3.search.fbnet.tasks import keep_costs
from fbnetv3.search.fbnet.time_budget import TimeBudget
from fbnetv3.search.fbnet.watch import RunWatch
from fbnetv3.search.fbnet.winners import (
    BudgetWinner,
    Winner,
    write_best,
    write_budget_winners,
    write_front,
)
from fbnetv3.search.jointnas import JointNAS
from fbnetv3.search.report.progress import SearchProgress
from fbnetv3.search.result import SearchResult
from fbnetv3.search.storage.batch_log import BatchLog, LoggedSearch
from fbnetv3.search.storage.database import require_study
from fbnetv3.search.trial import differences


@dataclass(frozen=True)
class SearchRun:
    """A search that is done or that SEARCH.MAX_HOURS ended, and the files that it wrote.

    Attributes:
        result: The trials and the predictor.
        best: The trained candidate with the best score.
        budgets: For each of SEARCH.BUDGETS, the trained candidate with the best score within it, if
            there is one.
        report: Path of the html report.
        is_complete: Whether the search is done; False if SEARCH.MAX_HOURS ended it early.
        front: The trained candidates on the Pareto front of SEARCH.OBJECTIVES, in the order of
            :meth:`SearchResult.pareto`; () if the search has one objective.
    """

    result: SearchResult
    best: Winner
    budgets: tuple[BudgetWinner, ...]
    report: Path
    is_complete: bool = True
    front: tuple[Winner, ...] = ()

    @property
    def winners(self) -> list[Winner]:
        """The best winner, then those of the budgets; those of the front are in ``front``."""
        return [self.best, *(b.winner for b in self.budgets if b.winner is not None)]


@dataclass(frozen=True)
class EvolvedRun:
    """The winners for other budgets and the updated report.

    Attributes:
        winners: One winner for each budget, in the order of the budgets.
        report: Path of the html report.
    """

    winners: tuple[Winner, ...]
    report: Path


def run_search(
    cfg: CfgNode,
    folder: str | os.PathLike[str],
    *,
    restore: str | os.PathLike[str] | None = None,
    retry_failed: str | None = None,
    enqueue: str | os.PathLike[str] | None = None,
    stream: TextIO | None = None,
) -> SearchRun:
    """Runs a search in a folder, or resumes the search that the folder holds.

    KeyboardInterrupt, or the end of SEARCH.MAX_HOURS, ends the search once the trainings that are
    running have saved checkpoints. The same call then resumes it. A larger SEARCH.ITERATIONS
    continues a search that has ended.

    Args:
        cfg: Config of the search; see :func:`~fbnetv3.search.fbnet.read_search_config`.
        folder: Folder of the run; replaces OUTPUT_DIR.
        restore: Copy of ``log/`` of a lost run, from which the search continues; None: no copy.
        retry_failed: Argument of :meth:`JointNAS.retry_failed`; None: the method is not called.
        enqueue: Yaml of candidates to evaluate in the next batch, as :func:`read_candidates` reads
            it; None: no candidates. Candidates that are trials or enqueued already are skipped.
        stream: Stream to print progress to, such as ``sys.stdout``. If None, nothing is printed.

    Raises:
        FBNetError: The config is invalid, the folder is in use or holds another search, the data
            are missing, a file cannot be written, no candidate has a score, or the search cannot go
            on (see :meth:`JointNAS.run`).
    """
    candidates = () if enqueue is None else read_candidates(enqueue)
    run_folder = RunFolder(folder)
    with run_folder.locked():
        setup = setup_from_config(cfg, run_folder)
        start = Start(restore, retry_failed, candidates)
        search, result, is_complete = _run(setup, run_folder, start, stream)
        winner = write_best(setup, run_folder, result)
        winners = tuple(write_budget_winners(setup, run_folder, result))
        front = tuple(write_front(setup, run_folder, result))
        report = write_run_report(setup.cfg, run_folder, search)
        return SearchRun(result, winner, winners, report, is_complete, front)


def evolve_budgets(
    folder: str | os.PathLike[str],
    budgets: Sequence[Budget],
    opts: Sequence[Any] = (),
    drop: Sequence[str] = (),
) -> EvolvedRun:
    """Finds winners for other budgets with the predictor of a search, without training.

    The budgets are added to the constraints of the search.

    Args:
        folder: Folder of the run, finished or interrupted.
        budgets: A budget for each winner: one bound, or a sequence of bounds that the winner meets
            together; an empty sequence adds none.
        opts: Overrides of locations in the run's config: KEY, VALUE, ...
        drop: Statistics whose constraint in SEARCH.CONSTRAINTS does not apply to the winners.

    Raises:
        FBNetError: The folder holds no run or is in use, there are too few scores to fit a
            predictor, a statistic is unknown, no candidate of the space meets a budget, or a
            statistic to drop has no constraint.
    """
    run_folder = RunFolder(folder)
    setup = SearchSetup(read_run_config(run_folder, opts))
    with run_folder.locked():
        search = open_search(setup)
        winners = evolve_winners(setup, run_folder, search, budgets, drop)
        return EvolvedRun(tuple(winners), write_run_report(setup.cfg, run_folder, search))


def enqueue_candidates(
    folder: str | os.PathLike[str],
    candidates: str | os.PathLike[str],
    opts: Sequence[Any] = (),
) -> str:
    """Enqueues candidates in a run, which may be running, and returns a line about them.

    Args:
        folder: Folder of the run.
        candidates: Yaml of the candidates; see :func:`read_candidates`.
        opts: Overrides of locations in the run's config: KEY, VALUE, ...

    Raises:
        FBNetError: The folder holds no run; the candidates cannot be read; a candidate is not in
            the space, violates a constraint, or is a trial or enqueued already; or the last batch
            has been proposed.
    """
    items = read_candidates(candidates)
    setup = SearchSetup(read_run_config(RunFolder(folder), opts))
    require_study(storage_url(setup.cfg), setup.cfg.SEARCH.STUDY)
    with closing(build_search(setup)) as search:
        return enqueue_all(search, items, skip_if_exists=False)


def report_run(folder: str | os.PathLike[str], opts: Sequence[Any] = ()) -> Path:
    """Writes the report of a run, which may still be running, and returns the report's path.

    Args:
        folder: Folder of the run.
        opts: Overrides of locations in the run's config: KEY, VALUE, ...

    Raises:
        FBNetError: The folder holds no run, or its storage cannot be read or does not hold the
            search.
    """
    run_folder = RunFolder(folder)
    setup = SearchSetup(read_run_config(run_folder, opts))
    return write_run_report(setup.cfg, run_folder, open_search(setup))


@dataclass(frozen=True)
class Start:
    """What happens to a search before it runs.

    Attributes:
        restore: Folder of the log that is restored; None: no log.
        retry_failed: Text that the reason of a failed trial must contain for the trial to be
            evaluated again; empty: all failed trials are; None: none is.
        enqueue: Candidates to enqueue, with their reasons.
    """

    restore: str | os.PathLike[str] | None = None
    retry_failed: str | None = None
    enqueue: Sequence[tuple[dict[str, Any], str]] = ()

    def apply(self, search: JointNAS, logged: LoggedSearch | None) -> Iterator[str]:
        """Changes a search, and yields lines about it."""
        if logged is not None:
            search.restore(logged)
        if self.retry_failed is not None:
            count = len(search.retry_failed(self.retry_failed))
            trials = "trial is" if count == 1 else "trials are"
            yield f"{count} failed {trials} put back, to be evaluated again"
        if self.enqueue:
            yield enqueue_all(search, self.enqueue)


def _run(
    setup: SearchSetup, folder: RunFolder, start: Start, stream: TextIO | None
) -> tuple[JointNAS, SearchResult, bool]:
    """Returns the search, its result, and whether the search is done."""
    cfg, node = setup.cfg, setup.cfg.SEARCH
    log = BatchLog(folder.log, EXTENSIBLE_KEYS)
    scored_by = json.loads(json.dumps(values_affecting_scores(cfg)))
    logged = None if start.restore is None else _read_log(start.restore, scored_by)
    executor, budget = executor_from_config(cfg), TimeBudget(node.MAX_HOURS)
    check_trainings(setup)
    candidates = candidates_place(cfg, folder, scored_by, logged and logged.config)
    search, placement = build_search(setup, executor), placement_from_config(cfg)
    progress = SearchProgress(
        search.size,
        stream,
        batches=node.ITERATIONS,
        direction=node.DIRECTION,
        full_epochs=max(node.RUNGS, default=None),
        unit="iteration" if counts_iterations(cfg) else "epoch",
    )
    progress.say("\n".join([*plan_lines(setup, search), *placement_lines(cfg, placement)]))
    for line in start.apply(search, logged):
        progress.say(line)
    log.drop_outdated(search.earlier_failures)
    search.ask()
    finished = search.finished_trials()
    log.check(finished)
    # Written after all checks: if a rejected config were stored, the corrected one would be refused
    # as another config.
    folder.write_config(cfg.dump(), file_hashes(cfg), changes_yaml(cfg, get_search_cfg()))
    keep_costs(setup, folder.costs)
    if finished:
        progress.say(f"resuming after {len(finished)} finished trials")
        progress.replayed(finished)
    watch = RunWatch(progress, log, scored_by)
    evaluate = evaluator_from_config(SearchSetup(placement.applied_to(cfg)), candidates)
    with progress, closing(SearchWriters(cfg, len(finished))) as writers:
        result = _run_within(budget, search, evaluate, [watch, writers])
    watch.keep(search)  # Logs batches that finished just before an earlier process was killed.
    return search, result, not budget.is_used_up


def _run_within(
    budget: TimeBudget, search: JointNAS, evaluate: Any, callbacks: Sequence[Any]
) -> SearchResult:
    """Runs a search until it is done or its time is used up, and returns the result.

    Raises:
        SearchError: The time is used up, and no candidate has a score.
    """
    try:
        with budget:
            return search.run(evaluate, callbacks=callbacks)
    except KeyboardInterrupt:
        if not budget.is_used_up:
            raise
    result = search.result()
    if not result.complete:
        raise SearchError(
            f"SEARCH.MAX_HOURS={budget.hours:g} is over, and no candidate has a score; the same "
            "command, with more hours, continues the search; or start one with shorter trainings "
            "(SOLVER.MAX_EPOCHS, DATA.TRAIN_LIMIT) in a new OUTPUT_DIR"
        )
    return result


def _read_log(folder: str | os.PathLike[str], scored_by: dict[str, Any]) -> LoggedSearch:
    """Returns the log of a lost run.

    Raises:
        SearchError: The folder holds no log, or the log of a search with another config
            (SEARCH.ITERATIONS aside); in that case, the message names the keys that differ.
    """
    logged = BatchLog(folder, EXTENSIBLE_KEYS).read()
    configs = (
        {key: value for key, value in config.items() if key not in EXTENSIBLE_KEYS}
        for config in (logged.config, scored_by)
    )
    different = differences(*configs)
    if different:
        raise SearchError(
            f"the log in {folder} was written by a search with another config: {different}; use "
            "the config of that search"
        )
    return logged
