"""Runs or resumes a search in its folder, evolves winners from it, and writes its report."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fbnetv3.config import CfgNode
from fbnetv3.config.changes import changes_yaml
from fbnetv3.search.errors import SearchError
from fbnetv3.search.executors.base import Executor
from fbnetv3.search.fbnet.config import (
    SearchSetup,
    default_values,
    evaluator_config,
    executor_from_config,
    file_hashes,
    settings_from_config,
    values_affecting_scores,
)
from fbnetv3.search.fbnet.config_file import read_run_config
from fbnetv3.search.fbnet.datasets import final_classes
from fbnetv3.search.fbnet.evaluator import evaluator_from_config
from fbnetv3.search.fbnet.evolve import Budget, evolve_winners
from fbnetv3.search.fbnet.keys import RESUMABLE_KEYS, get_search_cfg
from fbnetv3.search.fbnet.mirror import Mirror, is_uri
from fbnetv3.search.fbnet.placement import placement_from_config, placement_lines
from fbnetv3.search.fbnet.preflight import check_trainings
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.run_report import classes_line, write_run_report
from fbnetv3.search.fbnet.search_writers import SearchWriters
from fbnetv3.search.fbnet.tasks import (
    keep_costs,
    latency_lines,
    refusal_lines,
    statistics_of,
)
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
    """A finished search and the files that it wrote.

    Attributes:
        result: The trials and the predictor.
        best: The trained candidate with the highest score.
        budgets: The trained candidate with the highest score within each of SEARCH.BUDGETS.
        report: Path of the html report.
        is_complete: Whether the search is done; False if SEARCH.MAX_HOURS ended it early.
        front: The trained candidates on the Pareto front of SEARCH.OBJECTIVES, the cheapest first.
    """

    result: SearchResult
    best: Winner
    budgets: tuple[BudgetWinner, ...]
    report: Path
    is_complete: bool = True
    front: tuple[Winner, ...] = ()

    @property
    def winners(self) -> list[Winner]:
        """All winners that were written: the best one, then those of the budgets."""
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
    stream: TextIO | None = None,
) -> SearchRun:
    """Runs a search in a folder, or resumes the search that the folder holds.

    KeyboardInterrupt, or the end of SEARCH.MAX_HOURS, ends the search after running trainings have
    saved a checkpoint. The same call then resumes it.

    Args:
        cfg: Config of the search; see :func:`~fbnetv3.search.fbnet.read_search_config`.
        folder: Folder of the run; replaces OUTPUT_DIR.
        restore: Copy of ``log/`` of a lost run, from which the search continues; None: no copy.
        retry_failed: Argument of :meth:`JointNAS.retry_failed`, called first; None: not called.
        stream: Stream to print progress to, such as ``sys.stdout``. If None, nothing is printed.

    Raises:
        FBNetError: The config is invalid, the folder is in use or holds another search, the data
            are missing, or a file cannot be written.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = os.fspath(folder)
    run_folder = RunFolder(folder)
    with run_folder.locked():
        cfg.SEARCH.FINAL_CLASSES = _final_classes(cfg, run_folder)
        setup = SearchSetup(cfg)
        run_folder.check_config(setup.cfg.dump(), RESUMABLE_KEYS, default_values())
        run_folder.check_files(file_hashes(setup.cfg))
        run_folder.check_code()
        search, result, is_complete = _run(setup, run_folder, restore, retry_failed, stream)
        winner = write_best(setup, run_folder, result)
        winners = tuple(write_budget_winners(setup, run_folder, result))
        front = tuple(write_front(setup, run_folder, result))
        report = write_run_report(setup.cfg, run_folder, search)
        return SearchRun(result, winner, winners, report, is_complete, front)


def _final_classes(cfg: CfgNode, folder: RunFolder) -> int:
    """Returns SEARCH.FINAL_CLASSES or, if it is 0, the value in the folder's config.

    For a new folder, :func:`~fbnetv3.search.fbnet.datasets.final_classes` determines the value.
    """
    if cfg.SEARCH.FINAL_CLASSES or not folder.config.is_file():
        return final_classes(cfg)
    return int(folder.stored_config().get("SEARCH.FINAL_CLASSES", 0))


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
        budgets: Upper bounds, one winner each; several bounds at once are given as a sequence.
        opts: Overrides of locations in the run's config: KEY, VALUE, ...
        drop: Statistics whose constraint in SEARCH.CONSTRAINTS does not apply to the winners.

    Raises:
        FBNetError: The folder holds no run or is in use, there are too few scores to fit a
            predictor, a statistic is unknown, or no candidate of the space meets a budget.
    """
    run_folder = RunFolder(folder)
    setup = SearchSetup(read_run_config(run_folder, opts))
    with run_folder.locked():
        search = _open_search(setup)
        winners = evolve_winners(setup, run_folder, search, budgets, drop)
        return EvolvedRun(tuple(winners), write_run_report(setup.cfg, run_folder, search))


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
    return write_run_report(setup.cfg, run_folder, _open_search(setup))


def _run(
    setup: SearchSetup,
    folder: RunFolder,
    restore: str | os.PathLike[str] | None,
    retry_failed: str | None,
    stream: TextIO | None,
) -> tuple[JointNAS, SearchResult, bool]:
    """Returns the search, its result, and whether the search is done."""
    cfg, node = setup.cfg, setup.cfg.SEARCH
    total = node.BATCH_SIZE * node.ITERATIONS + node.FINALISTS
    progress = SearchProgress(total, stream, batches=node.ITERATIONS, direction=node.DIRECTION)
    log = BatchLog(folder.log)
    scored_by = json.loads(json.dumps(values_affecting_scores(cfg)))
    logged = None if restore is None else _read_log(restore, scored_by)

    watch = RunWatch(progress, log, scored_by)
    executor, budget = executor_from_config(cfg), TimeBudget(node.MAX_HOURS)
    check_trainings(setup)
    candidates = _candidates_folder(cfg, folder, scored_by)
    search, placement = build_search(setup, executor), placement_from_config(cfg)
    progress.say("\n".join([*_plan_lines(setup, search), *placement_lines(cfg, placement)]))
    if logged is not None:
        search.restore(logged)
    if retry_failed is not None:
        progress.say(_put_back(search, retry_failed))
    log.drop_outdated(search.earlier_failures)
    search.ask()
    finished = search.finished_trials()
    log.check(finished)
    # Written after all checks: a rejected config would make the corrected one look like a change.
    folder.write_config(cfg.dump(), file_hashes(cfg), changes_yaml(cfg, get_search_cfg()))
    keep_costs(setup, folder.costs)
    if finished:
        progress.say(f"resuming after {len(finished)} finished trials")
        progress.replayed(finished)
    evaluate = evaluator_from_config(SearchSetup(placement.applied_to(cfg)), candidates)
    with progress, closing(SearchWriters(cfg, len(finished))) as writers:
        result = _run_within(budget, search, evaluate, [watch, writers])
    watch.keep(search)  # Logs batches that finished just before an earlier process was killed.
    return search, result, not budget.is_used_up


def _put_back(search: JointNAS, reason: str) -> str:
    """Makes the search evaluate failed trials again, and returns a line about them."""
    count = len(search.retry_failed(reason))
    return f"{count} failed {'trial is' if count == 1 else 'trials are'} put back"


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
    if not any(t.state == "complete" for t in result.trials):
        raise SearchError(
            f"SEARCH.MAX_HOURS={budget.hours:g} is over, and no candidate has finished its "
            "training; the same command continues the search: give it more hours, or shorten the "
            "trainings (SOLVER.MAX_EPOCHS, DATA.TRAIN_LIMIT)"
        )
    return result


def build_search(
    setup: SearchSetup, executor: Executor | None = None, *, read_only: bool = False
) -> JointNAS:
    """Returns the search that a config describes, on SEARCH.STORAGE or its folder's database.

    Args:
        setup: Config and space of the search.
        executor: Executor that runs the trainings; None trains in this process.
        read_only: Whether to write nothing to the storage, which may be untrusted.

    Raises:
        FBNetError: A value of the config is invalid, or the storage holds another search.
    """
    cfg = setup.cfg
    return JointNAS(
        setup.space.space,
        settings_from_config(cfg),
        statistics=statistics_of(setup),
        warm_start=cfg.SEARCH.WARM_START or None,
        executor=executor,
        storage=_storage(cfg),
        study=cfg.SEARCH.STUDY,
        evaluator_config=evaluator_config(setup),
        read_only=read_only,
        stop_after_failures=cfg.SEARCH.STOP_AFTER_FAILURES,
    )


def _open_search(setup: SearchSetup) -> JointNAS:
    """Returns the search of a run, for reading only.

    Raises:
        FBNetError: The storage cannot be read, or does not hold the search.
    """
    require_study(_storage(setup.cfg), setup.cfg.SEARCH.STUDY)
    return build_search(setup, read_only=True)


def _storage(cfg: CfgNode) -> str:
    return str(cfg.SEARCH.STORAGE or RunFolder(cfg.OUTPUT_DIR).storage)


def _candidates_folder(cfg: CfgNode, folder: RunFolder, scored_by: dict[str, Any]) -> str:
    """Returns the folder or URI of the candidates; a URI is checked to be writable.

    Several searches may use the same SEARCH.CANDIDATES. Their candidates can have the same ids but
    different scores, so each search has its own subfolder, named by a hash of its config.
    """
    place = str(folder.candidates)
    if cfg.SEARCH.CANDIDATES:
        name = hashlib.sha256(json.dumps(scored_by, sort_keys=True).encode()).hexdigest()[:12]
        place = f"{cfg.SEARCH.CANDIDATES.rstrip('/')}/{name}"
    if is_uri(place):
        Mirror(place).check()
    return place


def _read_log(folder: str | os.PathLike[str], scored_by: dict[str, Any]) -> LoggedSearch:
    """Returns the log of a lost run.

    Raises:
        SearchError: The folder holds no log, or the log of a search with another config; in that
            case, the message names the keys that differ.
    """
    logged = BatchLog(folder).read()
    different = differences(logged.config, scored_by)
    if different:
        raise SearchError(
            f"the log in {folder} was written by a search with another config: {different}; use "
            "the config of that search"
        )
    return logged


def _plan_lines(setup: SearchSetup, search: JointNAS) -> list[str]:
    """Returns lines about the space's size, the constraints' ranges and the encoder's quality."""
    plan, cfg = search.plan, setup.cfg
    lines = [*setup.space.size_lines(), f"pool: {len(plan.pool)} candidates"]
    if not cfg.SEARCH.HOLD_OUT:
        lines.append(
            f"candidates are scored on DATASETS.TEST ({', '.join(cfg.DATASETS.TEST)}), so the "
            "winner's score there is optimistic; SEARCH.HOLD_OUT N scores them on N training images"
        )
    lines += filter(None, [classes_line(cfg, search)])
    lines += [*refusal_lines(setup), *latency_lines(setup)]
    for name, reach in plan.reach.items():
        lines.append(
            f"{name}: the space reaches {reach.low:.4g} to {reach.high:.4g}; "
            f"{reach.acceptance:.1%} of it meets the constraint"
        )
    for name, value in plan.pretrained.correlation.items():
        lines.append(
            f"encoder pre-trained on {name}: correlation {value:.4f} on the held-out 20% of the "
            "pool"
        )
    return lines
