"""``fbnetv3-search``: searches for an architecture and its training recipe together."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from fbnetv3.cli import run_main
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.version_option import version_option
from fbnetv3.registries import LATENCY, STATISTIC_UNITS
from fbnetv3.requires import require_detectron2
from fbnetv3.search.fbnet import require_packages
from fbnetv3.signals import stop_signals_as_interrupt

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.evolve import Budget
    from fbnetv3.search.fbnet.run import SearchRun
    from fbnetv3.search.fbnet.winners import Winner

_EPILOG = """\
examples:
  %(prog)s --config-file model_zoo/search/digits.yaml
  %(prog)s --config-file model_zoo/search/digits.yaml SEARCH.WORKERS 2    # resumes the search
  %(prog)s --config-file model_zoo/search/digits.yaml SEARCH.EXECUTOR ray # on a Ray cluster
  %(prog)s --config-file model_zoo/search/digits.yaml --restore kept/log OUTPUT_DIR output/again
  %(prog)s --config-file model_zoo/search/digits.yaml --retry-failed "out of memory"
  %(prog)s --config-file model_zoo/search/digits.yaml --dry-run            # trains nothing
  %(prog)s --config-file model_zoo/search/digits.yaml --enqueue mine.yaml
  %(prog)s --run output/search/digits --enqueue mine.yaml                 # also while it runs
  %(prog)s --evolve output/search/digits --macs 1e6 2e6 --params 1e5
  %(prog)s --evolve output/search/digits --budget "macs <= 2e6, params <= 1e5"
  %(prog)s --report output/search/digits                       # also while it runs
"""
_STORAGE_KEY = "SEARCH.STORAGE"
"""The only key that ``--evolve``, ``--report`` and ``--run`` accept.

All other keys are read from the config of the run.
"""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-search",
        description="Search architecture and training recipe together (JointNAS). The same "
        "command resumes an interrupted search.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[import_option(), version_option()],
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--config-file", help="path of a yaml, or the name of one in model_zoo/")
    action.add_argument(
        "--evolve", metavar="RUN_DIR", help="find winners for other budgets without training"
    )
    action.add_argument("--report", metavar="RUN_DIR", help="update RUN_DIR/report.html")
    action.add_argument("--run", metavar="RUN_DIR", help="run that --enqueue adds candidates to")
    _run_arguments(parser)
    _budget_arguments(parser)
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help=f"override keys of the config; --evolve, --report, --run take {_STORAGE_KEY} URL only",
    )
    return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--enqueue",
        metavar="FILE",
        help="yaml of candidates to evaluate next; with --config-file the search then runs",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with --config-file: print the next batch and its cost; train and write nothing",
    )
    parser.add_argument(
        "--restore",
        metavar="LOG_DIR",
        help="with --config-file: continue a lost run from a copy of its log/ folder",
    )
    parser.add_argument(
        "--retry-failed",
        metavar="REASON",
        nargs="?",
        const="",
        help="with --config-file: rerun failed trials whose reason contains REASON; without "
        "REASON, all failed trials",
    )


def _budget_arguments(parser: argparse.ArgumentParser) -> None:
    budgets = parser.add_argument_group(
        "budgets for --evolve",
        "Finds one winner per budget, which also meets the run's constraints.\n"
        "Without a budget, finds one that meets the run's constraints.",
    )
    for name, unit in STATISTIC_UNITS.items():
        condition = ", if the run has a SEARCH.LATENCY_TABLE" if name == LATENCY else ""
        text = f"at most N {unit}{condition}"
        budgets.add_argument(_flag(name), nargs="+", type=float, default=[], metavar="N", help=text)
    budgets.add_argument(
        "--budget",
        nargs="+",
        default=[],
        metavar="BOUNDS",
        help="several bounds at once, such as 'macs <= 4.5e8, latency_ms <= 5'",
    )
    budgets.add_argument(
        "--drop-constraint",
        nargs="+",
        default=[],
        metavar="NAME",
        help="ignore the run's constraint on this statistic",
    )


def _flag(statistic: str) -> str:
    """Returns the option of an argument, such as ``--latency-ms`` of ``latency_ms``."""
    return "--" + statistic.replace("_", "-")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Command-line arguments; None: those of the process.

    Returns:
        The exit status.

    Raises:
        FBNetError: An option, a file, the config or the data cannot be used.
    """
    parser = make_parser()
    args = parser.parse_intermixed_args(argv)
    _check_arguments(parser, args)
    require_detectron2()
    require_packages()
    import_code(args)
    _show_warnings(None if args.report else sys.stderr)
    if args.report:
        return _report(args.report, list(args.opts))
    if args.evolve:
        return _evolve(args)
    if args.run:
        return _enqueue(args)
    if args.dry_run:
        return _dry_run(args)
    return _search(args)


def _check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for name in () if args.evolve else ("budget", "drop_constraint", *STATISTIC_UNITS):
        if getattr(args, name):
            parser.error(f"{_flag(name)} needs --evolve RUN_DIR")
    folder = args.evolve or args.report or args.run
    if folder and not set(args.opts[::2]) <= {_STORAGE_KEY}:
        parser.error(
            "--evolve, --report and --run take the config of their run; the only key that they "
            f"accept is {_STORAGE_KEY}"
        )
    if args.restore and not args.config_file:
        parser.error("--restore LOG_DIR needs --config-file")
    if args.enqueue and not (args.config_file or args.run):
        parser.error("--enqueue FILE needs --config-file, or --run RUN_DIR")
    if args.run and not args.enqueue:
        parser.error("--run RUN_DIR needs --enqueue FILE")
    if args.dry_run and not args.config_file:
        parser.error("--dry-run needs --config-file")
    if args.dry_run and (args.restore or args.enqueue or args.retry_failed is not None):
        parser.error("--dry-run changes nothing: --restore, --retry-failed, --enqueue do not apply")
    if args.retry_failed is not None and not args.config_file:
        parser.error("--retry-failed resumes a search, so it needs --config-file")
    if re.fullmatch(r"[A-Z_]+(\.[A-Z0-9_]+)+|SEED|OUTPUT_DIR", args.retry_failed or ""):
        parser.error(
            f"--retry-failed {args.retry_failed}: REASON looks like a config key; write keys and "
            "their values before --retry-failed"
        )


def _show_warnings(stream: TextIO | None) -> None:
    """Prints the search's own warnings; logs of trainings go to the candidates' folders.

    Args:
        stream: Stream to print to; None: nothing is printed, as for a report, which contains the
            warnings.
    """
    logger = logging.getLogger("fbnetv3.search")
    if not logger.handlers:
        handler = logging.StreamHandler(stream) if stream else logging.NullHandler()
        handler.setFormatter(logging.Formatter("warning: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def _dry_run(args: argparse.Namespace) -> int:
    from fbnetv3.search.fbnet import preview_search, read_search_config

    cfg = read_search_config(args.config_file, list(args.opts))
    print(preview_search(cfg, cfg.OUTPUT_DIR))
    return 0


def _enqueue(args: argparse.Namespace) -> int:
    from fbnetv3.search.fbnet import enqueue_candidates

    print(enqueue_candidates(args.run, args.enqueue, list(args.opts)))
    return 0


def _search(args: argparse.Namespace) -> int:
    from fbnetv3.search.fbnet.commands import resume_command
    from fbnetv3.search.fbnet.config_file import read_search_config
    from fbnetv3.search.fbnet.run import run_search
    from fbnetv3.search.fbnet.run_folder import RunFolder

    cfg = read_search_config(args.config_file, list(args.opts))
    try:
        with stop_signals_as_interrupt():
            run = run_search(
                cfg,
                cfg.OUTPUT_DIR,
                restore=args.restore,
                retry_failed=args.retry_failed,
                enqueue=args.enqueue,
                stream=sys.stdout,
            )
    except KeyboardInterrupt:
        folder = RunFolder(cfg.OUTPUT_DIR)
        if not folder.config.is_file():  # interrupted before the search started
            raise
        command = resume_command(folder.path, cfg)
        print(f"\ninterrupted; finished trials are kept. Resume with:\n  {command}", flush=True)
        return 130
    _print_run(run)
    if not run.is_complete:
        print(
            f"stopped after SEARCH.MAX_HOURS={cfg.SEARCH.MAX_HOURS:g}; the search is incomplete. "
            f"Resume with:\n  {resume_command(RunFolder(cfg.OUTPUT_DIR).path, cfg)}"
        )
    return 0


def _print_run(run: SearchRun) -> None:
    from fbnetv3.search.fbnet.winners import cost_text

    result, best = run.result, run.result.best
    if result.report_cards:
        print(result.report_cards[-1])
    if result.failures is not None:
        print(f"failures: {result.failures}")
    stop = result.early_stop
    if stop is not None and stop.epoch is not None:
        print(
            f"trainings stop early, after epoch {stop.epoch} (rank correlation >= {stop.threshold})"
        )
    for rung in result.rungs:
        print(rung)
    for budget in run.budgets:
        if budget.winner is None:
            print(f"{budget.budget}: no trained candidate meets this budget")
        else:
            _print_winner(budget.winner)
    if run.front:
        # Objectives may be scores only, without a cost
        first = [*result.objectives.costs, *result.objectives.scores][0].name
        count = f"{len(run.front)} config{'' if len(run.front) == 1 else 's'}, by rising {first}"
        print(
            f"Pareto front ({count}):", *(f"{w.path}: {w.facts[0]}" for w in run.front), sep="\n  "
        )
    spread = result.spreads.get(best.id)
    about = "" if spread is None else f" ({spread})"
    print(f"best: {best.id} with {best.score:.2f}{about}{cost_text(best.statistics)}")
    print(f"report: {run.report}")
    print(f"train it with:\n  {run.best.command}")


def _print_winner(winner: Winner) -> None:
    print(f"{winner.path}:", *winner.facts, f"train it with: {winner.command}", sep="\n  ")


def _evolve(args: argparse.Namespace) -> int:
    from fbnetv3.search import Constraint
    from fbnetv3.search.fbnet.bounds import parse_bounds
    from fbnetv3.search.fbnet.run import evolve_budgets

    singles = [Constraint(name, upper=n) for name in STATISTIC_UNITS for n in getattr(args, name)]
    budgets: list[Budget] = [*singles, *map(parse_bounds, args.budget)]
    # () has no bounds of its own, so that its winner meets the run's constraints only
    run = evolve_budgets(args.evolve, budgets or [()], list(args.opts), args.drop_constraint)
    for winner in run.winners:
        _print_winner(winner)
    print(f"report: {run.report}")
    return 0


def _report(folder: str, opts: list[str]) -> int:
    from fbnetv3.search.fbnet.run import report_run

    print(report_run(folder, opts))
    return 0


def cli() -> None:
    """Runs the console script ``fbnetv3-search``."""
    sys.exit(run_main(main))
