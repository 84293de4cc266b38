"""Searches an architecture and its training recipe together, or evolves for further budgets."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fbnetv3.cli import run_main
from fbnetv3.requires import require, require_detectron2
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.evolve import BUDGETS, evolve_budgets, flag
from fbnetv3.search.fbnet.places import READING, check_places
from fbnetv3.search.fbnet.winners import (
    report_run,
    resume_command,
)

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.run import _build_known, _run, _sigterm_as_interrupt

_EPILOG = """\
examples:
  %(prog)s --config-file model_zoo/search/digits.yaml
  %(prog)s --config-file model_zoo/search/digits.yaml SEARCH.WORKERS 2   # goes on where it stopped
  %(prog)s --config-file model_zoo/search/digits.yaml SEARCH.EXECUTOR ray # on a Ray cluster
  %(prog)s --config-file model_zoo/search/digits.yaml --restore kept/log OUTPUT_DIR output/again
  %(prog)s --evolve output/search/digits --macs 1e6 2e6 4e6 --params 1e5
  %(prog)s --report output/search/digits                       # also while it runs
"""
_PACKAGES = {"optuna": "search", "sqlalchemy": "search", "jinja2": "report", "matplotlib": "report"}
"""Optional packages of a search and its report, and the extra that installs each."""


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
    for package, extra in _PACKAGES.items():
        require(package, extra)
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
    from fbnetv3.search.fbnet.evaluator import get_search_cfg

    cfg, path = get_search_cfg(), find_config(config_file)
    cfg.merge_from_file(str(path))
    check_places(cfg, path, {*opts[::2], *unused})
    cfg.merge_from_list(opts)
    if not cfg.OUTPUT_DIR:
        cfg.OUTPUT_DIR = os.path.join("output", "search", path.stem)
    cfg.freeze()
    return cfg


def _search(config_file: str, opts: list[str], restore: str | None) -> int:
    from fbnetv3.search.fbnet.config import MAY_CHANGE, file_hashes
    from fbnetv3.search.fbnet.run_folder import RunFolder

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


def _evolve(run: Path, opts: list[str], budgets: list[tuple[str, float]]) -> int:
    """Stage 2 for each budget, by the predictor of a finished or running search."""
    from fbnetv3.search.fbnet.run_folder import RunFolder

    folder = RunFolder(run)
    folder.require()
    with folder.locked():
        cfg = _config_of(folder, opts)
        evolve_budgets(cfg, folder, _build_known(cfg), budgets)
    return 0


def _report(run: Path, opts: list[str]) -> int:
    """Writes the report of a finished or running search; a running one is left alone."""
    from fbnetv3.search.fbnet.run_folder import RunFolder

    folder = RunFolder(run)
    folder.require()
    cfg = _config_of(folder, opts)
    print(report_run(cfg, folder, _build_known(cfg)))
    return 0


def _config_of(folder: RunFolder, opts: list[str]) -> Any:
    """Returns the config of a run to read, whose files must hold what they did when it began."""
    from fbnetv3.search.fbnet.config import file_hashes

    places = [*opts, "OUTPUT_DIR", str(folder.path)]
    cfg = _read_config(str(folder.config), places, ("SEARCH.CANDIDATES", "SEARCH.RAY.ADDRESS"))
    folder.check_files(file_hashes(cfg))
    return cfg


def cli() -> None:
    """The console script."""
    sys.exit(run_main(main))
