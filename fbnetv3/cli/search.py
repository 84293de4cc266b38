"""Searches an architecture and its training recipe together, or evolves for further budgets."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from fbnetv3.cli import require_detectron2, run_main
from fbnetv3.cli.run_watch import RunWatch
from fbnetv3.cli.search_evolve import BUDGETS, evolve_budgets, flag, write_trained
from fbnetv3.cli.search_places import READING, check_places
from fbnetv3.cli.search_results import (
    costs,
    report_run,
    resume_command,
    train_command,
    write_winner,
)
from fbnetv3.resources import find_config

if TYPE_CHECKING:
    from fbnetv3.search.batch_log import Logged
    from fbnetv3.search.executor import Executor
    from fbnetv3.search.jointnas import JointNAS
    from fbnetv3.search.result import SearchResult
    from fbnetv3.search.run_folder import RunFolder

_EPILOG = """\
examples:
  %(prog)s --config-file model_zoo/search/digits.yaml
  %(prog)s --config-file model_zoo/search/digits.yaml SEARCH.WORKERS 2   # goes on where it stopped
  %(prog)s --config-file model_zoo/search/digits.yaml SEARCH.EXECUTOR ray # on a Ray cluster
  %(prog)s --config-file model_zoo/search/digits.yaml --restore kept/log OUTPUT_DIR output/again
  %(prog)s --evolve output/search/digits --macs 1e6 2e6 4e6 --params 1e5
  %(prog)s --report output/search/digits                       # also while it runs
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-search",
        description="Search architecture and training recipe together (JointNAS).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", help="a yaml, or the name of one in model_zoo/")
    what.add_argument(
        "--evolve", metavar="RUN_DIR", help="stage 2 for further budgets, no training"
    )
    what.add_argument("--report", metavar="RUN_DIR", help="write RUN_DIR/report.html anew")
    parser.add_argument(
        "--restore",
        metavar="LOG_DIR",
        help="with --config-file: take over the finished batches in the folder log/ of a run whose "
        "machine is lost, and go on",
    )
    budgets = parser.add_argument_group("budgets for --evolve", "each gives a winner of its own")
    for name, unit in BUDGETS.items():
        budgets.add_argument(
            flag(name),
            nargs="+",
            type=float,
            default=[],
            metavar="N",
            help=f"at most so many {unit}",
        )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="override keys of the config; --evolve and --report take SEARCH.STORAGE URL",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    parser = make_parser()
    args = parser.parse_intermixed_args(argv)
    budgets = [(name, value) for name in BUDGETS for value in getattr(args, name)]
    if bool(args.evolve) != bool(budgets):
        flags = ", ".join(map(flag, BUDGETS))
        parser.error(f"--evolve RUN_DIR and a budget go together, as --macs 1e6 2e6 (or {flags})")
    if (args.evolve or args.report) and not set(args.opts[::2]) <= {*READING}:
        parser.error(
            "--evolve and --report take their run's config; drop the KEY VALUE pairs, but for "
            f"{' and '.join(READING)}"
        )
    if args.restore and not args.config_file:
        parser.error("--restore LOG_DIR goes with --config-file")
    require_detectron2()
    _show_warnings(None if args.report else sys.stderr)
    if args.report:
        return _report(Path(args.report), list(args.opts))
    if args.evolve:
        return _evolve(Path(args.evolve), list(args.opts), budgets)
    return _search(args.config_file, list(args.opts), args.restore)


def _show_warnings(stream: TextIO | None) -> None:
    """Prints warnings of the search; what a training logs goes to its candidate's log.

    Args:
        stream: where to; None: nowhere, for reports, which have a place for them.
    """
    logger = logging.getLogger("fbnetv3.search")
    if not logger.handlers:
        handler = logging.StreamHandler(stream) if stream else logging.NullHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def _read_config(config_file: str, opts: list[str], unused: Collection[str] = ()) -> Any:
    """Returns a frozen config.

    Args:
        config_file: a yaml, or the name of one.
        opts: what overrides it: KEY, VALUE, ...
        unused: keys of places that what follows makes no use of.
    """
    from fbnetv3.search.evaluator import get_search_cfg

    cfg, path = get_search_cfg(), find_config(config_file)
    cfg.merge_from_file(str(path))
    check_places(cfg, path, {*opts[::2], *unused})
    cfg.merge_from_list(opts)
    if not cfg.OUTPUT_DIR:
        cfg.OUTPUT_DIR = os.path.join("output", "search", path.stem)
    cfg.freeze()
    return cfg


def _build(cfg: Any, *, executor: Executor | None = None, watch: Any = None) -> JointNAS:
    """Makes the search that a config describes, on the storage of its folder."""
    from fbnetv3.arch.latency import LatencyTable
    from fbnetv3.search.config import search_arguments
    from fbnetv3.search.evaluator import num_classes_from_config, space_from_config
    from fbnetv3.search.jointnas import JointNAS

    arguments, space, node = search_arguments(cfg), space_from_config(cfg), cfg.SEARCH
    statistics = None
    if space.has_architecture:
        latency = LatencyTable.load(node.LATENCY_TABLE) if node.LATENCY_TABLE else None
        statistics = space.statistics(num_classes_from_config(cfg), latency)
    return JointNAS(
        space.space,
        statistics=statistics,
        executor=executor,
        storage=_storage(cfg),
        study=node.STUDY,
        watch=watch,
        **arguments,
    )


def _storage(cfg: Any) -> str:
    from fbnetv3.search.run_folder import RunFolder

    return str(cfg.SEARCH.STORAGE or RunFolder(cfg.OUTPUT_DIR).storage)


def _build_known(cfg: Any) -> JointNAS:
    """As :func:`_build`, where the storage has the search: elsewhere nothing is made or changed."""
    from fbnetv3.search.database import require_study

    require_study(_storage(cfg), cfg.SEARCH.STUDY)
    return _build(cfg)


def _search(config_file: str, opts: list[str], restore: str | None) -> int:
    from fbnetv3.search.config import MAY_CHANGE, file_hashes
    from fbnetv3.search.run_folder import RunFolder

    cfg = _read_config(config_file, opts)
    folder = RunFolder(cfg.OUTPUT_DIR)
    with folder.locked():
        folder.check_config(cfg.dump(), MAY_CHANGE)
        folder.check_files(file_hashes(cfg))
        try:
            with _sigterm_as_interrupt():
                _run(cfg, folder, restore)
        except KeyboardInterrupt:
            if not folder.config.is_file():  # nothing has begun
                raise
            told = resume_command(folder.path, cfg)
            print(f"\nstopped; finished trials are kept. Go on with:\n  {told}", flush=True)
            return 130
    return 0


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
    from fbnetv3.cli.search_preflight import check_trainings
    from fbnetv3.search.batch_log import BatchLog
    from fbnetv3.search.config import executor_from_config, file_hashes, identity
    from fbnetv3.search.evaluator import TrainEvaluator, space_from_config
    from fbnetv3.search.mirror import Mirror, is_uri
    from fbnetv3.search.progress import SearchProgress

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
    watch.search = search = _build(cfg, executor=executor, watch=watch)
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
        result = search.run(TrainEvaluator(cfg.dump(), place))
    watch.keep()  # what a kill kept from the log
    _save_predictor(folder.predictor, result)
    _tell(cfg, folder, search, result)


def _read_log(folder: str, scored_by: dict[str, Any]) -> Logged:
    """Returns a log to restore.

    Raises:
        SearchError: it is none, or of trainings by another config; names the keys that differ.
    """
    from fbnetv3.search.batch_log import BatchLog
    from fbnetv3.search.errors import SearchError
    from fbnetv3.search.trials import differences

    found = BatchLog(folder).read()
    different = differences(found.config, scored_by)
    if different:
        raise SearchError(
            f"--restore {folder}: its search has another config: {different}; give the same config"
        )
    return found


def _plan_lines(cfg: Any, search: JointNAS) -> list[str]:
    from fbnetv3.search.evaluator import space_from_config

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


def _save_predictor(path: Path, result: SearchResult) -> None:
    import torch

    from fbnetv3.io import atomic_write

    if result.predictor is None:
        return
    with atomic_write(path) as temporary:
        torch.save(result.predictor.tensors(), temporary)


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


def _evolve(run: Path, opts: list[str], budgets: list[tuple[str, float]]) -> int:
    """Stage 2 for each budget, by the predictor of a finished or running search."""
    from fbnetv3.search.run_folder import RunFolder

    folder = RunFolder(run)
    folder.require()
    with folder.locked():
        cfg = _config_of(folder, opts)
        evolve_budgets(cfg, folder, _build_known(cfg), budgets)
    return 0


def _report(run: Path, opts: list[str]) -> int:
    """Writes the report of a finished or running search; a running one is left alone."""
    from fbnetv3.search.run_folder import RunFolder

    folder = RunFolder(run)
    folder.require()
    cfg = _config_of(folder, opts)
    print(report_run(cfg, folder, _build_known(cfg)))
    return 0


def _config_of(folder: RunFolder, opts: list[str]) -> Any:
    """Returns the config of a run to read, whose files must hold what they did when it began."""
    from fbnetv3.search.config import file_hashes

    places = [*opts, "OUTPUT_DIR", str(folder.path)]
    cfg = _read_config(str(folder.config), places, ("SEARCH.CANDIDATES", "SEARCH.RAY.ADDRESS"))
    folder.check_files(file_hashes(cfg))
    return cfg


def cli() -> None:
    """The console script."""
    sys.exit(run_main(main))
