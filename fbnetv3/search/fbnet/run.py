"""Running a resumable search in its folder."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from fbnetv3.search.fbnet.evolve import write_trained
from fbnetv3.search.fbnet.watch import RunWatch
from fbnetv3.search.fbnet.winners import (
    costs,
    report_run,
    train_command,
    write_winner,
)

if TYPE_CHECKING:
    from fbnetv3.search.executors.base import Executor
    from fbnetv3.search.fbnet.run_folder import RunFolder
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.result import SearchResult
    from fbnetv3.search.storage.batch_log import LoggedSearch


def _build(cfg: Any, *, executor: Executor | None = None) -> JointNAS:
    """Makes the search that a config describes, on the storage of its folder."""
    from fbnetv3.arch.latency import LatencyTable
    from fbnetv3.search.fbnet.config import settings_from_config
    from fbnetv3.search.fbnet.evaluator import num_classes_from_config, space_from_config
    from fbnetv3.search.jointnas import JointNAS

    settings, space, node = settings_from_config(cfg), space_from_config(cfg), cfg.SEARCH
    statistics = None
    if space.has_architecture:
        latency = LatencyTable.load(node.LATENCY_TABLE) if node.LATENCY_TABLE else None
        statistics = space.statistics(num_classes_from_config(cfg), latency)
    return JointNAS(
        space.space,
        settings,
        statistics=statistics,
        warm_start=node.WARM_START or None,
        executor=executor,
        storage=_storage(cfg),
        study=node.STUDY,
    )


def _storage(cfg: Any) -> str:
    from fbnetv3.search.fbnet.run_folder import RunFolder

    return str(cfg.SEARCH.STORAGE or RunFolder(cfg.OUTPUT_DIR).storage)


def _build_known(cfg: Any) -> JointNAS:
    """As :func:`_build`, where the storage has the search: elsewhere nothing is made or changed."""
    from fbnetv3.search.storage.database import require_study

    require_study(_storage(cfg), cfg.SEARCH.STUDY)
    return _build(cfg)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """What schedulers send before they kill is as Ctrl-C: candidates save, and the search ends."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _run(cfg: Any, folder: RunFolder, restore: str | None) -> None:
    from fbnetv3.search.fbnet.config import executor_from_config, file_hashes, identity
    from fbnetv3.search.fbnet.evaluator import TrainEvaluator, space_from_config
    from fbnetv3.search.fbnet.mirror import Mirror, is_uri
    from fbnetv3.search.fbnet.preflight import check_trainings
    from fbnetv3.search.report.progress import SearchProgress
    from fbnetv3.search.storage.batch_log import BatchLog

    node = cfg.SEARCH
    total = node.BATCH_SIZE * node.ITERATIONS + node.FINALISTS
    progress = SearchProgress(total, sys.stdout, batches=node.ITERATIONS)
    log = BatchLog(folder.log)
    scored_by = json.loads(json.dumps(identity(cfg)))
    logged = None if restore is None else _read_log(restore, scored_by)

    watch = RunWatch(progress, log, scored_by)
    executor = executor_from_config(cfg)
    check_trainings(cfg, space_from_config(cfg))
    place = str(folder.candidates)
    if node.CANDIDATES:
        # a place may serve many searches, whose candidates have the same ids and other scores
        name = hashlib.sha256(json.dumps(scored_by, sort_keys=True).encode()).hexdigest()[:12]
        place = f"{node.CANDIDATES.rstrip('/')}/{name}"
    if is_uri(place):
        Mirror(place).check()
    search = _build(cfg, executor=executor)
    for line in _plan_lines(cfg, search):
        progress.say(line)
    if logged is not None:
        search.restore(logged)
    search.ask()
    finished = [t for t in search.trials if t.state != "running"]
    log.check(finished)
    # not before: what is refused leaves nothing that its mended form would differ from
    folder.keep_config(cfg.dump(), file_hashes(cfg))
    if finished:
        progress.say(f"going on after {len(finished)} finished trials")
        progress.replayed(finished)
    with progress:
        result = search.run(TrainEvaluator(cfg.dump(), place), callbacks=[watch])
    watch.keep(search)  # what a kill kept from the log
    _tell(cfg, folder, search, result)


def _read_log(folder: str, scored_by: dict[str, Any]) -> LoggedSearch:
    """Returns a log to restore.

    Raises:
        SearchError: it is none, or of trainings by another config; names the keys that differ.
    """
    from fbnetv3.search.errors import SearchError
    from fbnetv3.search.storage.batch_log import BatchLog
    from fbnetv3.search.trial import differences

    found = BatchLog(folder).read()
    different = differences(found.config, scored_by)
    if different:
        raise SearchError(
            f"--restore {folder}: its search has another config: {different}; give the same config"
        )
    return found


def _plan_lines(cfg: Any, search: JointNAS) -> list[str]:
    from fbnetv3.search.fbnet.evaluator import space_from_config

    plan = search.plan
    lines = [*space_from_config(cfg).size_lines(), f"pool: {len(plan.pool)} candidates"]
    for name, reach in plan.reach.items():
        lines.append(
            f"{name}: {reach.low:.4g} to {reach.high:.4g} can be reached, "
            f"{reach.acceptance:.1%} of the space meets the constraint"
        )
    for name, value in plan.pretrained.correlation.items():
        lines.append(f"encoder pre-trained on {name}: correlation {value:.4f} on 20% held out")
    return lines


def _tell(cfg: Any, folder: RunFolder, search: JointNAS, result: SearchResult) -> None:
    """Prints what was found; writes the winner's config and the report."""
    if result.cards:
        print(f"round {len(result.cards)}: {result.cards[-1]}")
    stop = result.early_stop
    if stop is not None and stop.epoch is not None:
        print(f"early stop: after epoch {stop.epoch} (rank correlation >= {stop.threshold})")
    best = result.best
    words = f"{best.id} with {best.score:.2f}{costs(best.statistics)}"
    path = write_winner(
        cfg, folder, "best", best.config, [f"score {best.score:.4f}{costs(best.statistics)}"]
    )
    write_trained(cfg, folder, result)
    print(f"best: {words}\nreport: {report_run(cfg, folder, search)}")
    print(f"train it with:\n  {train_command(path)}")
