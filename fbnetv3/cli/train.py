"""The command ``fbnetv3-train``: trains or evaluates the classifier or detector of a config."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbnetv3.cli import printable, run_main
from fbnetv3.cli.imports import import_code, import_option
from fbnetv3.cli.version_option import version_option
from fbnetv3.requires import require_detectron2
from fbnetv3.resources import find_config
from fbnetv3.streams import guarded_streams
from fbnetv3.user_code import UserCode

if TYPE_CHECKING:
    from fbnetv3.config import CfgNode

_EPILOG = """\
examples:
  %(prog)s --config-file model_zoo/digits.yaml
  %(prog)s --config-file model_zoo/digits.yaml --resume
  %(prog)s --config-file model_zoo/cifar10_fbnetv3_a0.yaml SOLVER.MAX_EPOCHS 3 OUTPUT_DIR output/try
  %(prog)s --config-file model_zoo/fbnetv3_g.yaml --eval-only MODEL.WEIGHTS zoo://fbnetv3_g
  %(prog)s --config-file model_zoo/detection/retinanet_fbnetv3_a0_digits.yaml
  %(prog)s --config-file model_zoo/detection/retinanet_fbnetv3_a0_bccd.yaml --check-data
  %(prog)s --config-file model_zoo/fbnetv3_g.yaml --num-processes 8 --num-machines 2 \\
      --machine-rank 0 --dist-url tcp://node0:29500    (--machine-rank 1 on the second machine)
  torchrun --nproc-per-node 8 tools/train_net.py --config-file model_zoo/fbnetv3_g.yaml
"""

# Option, options that it excludes, and why
_CONTRADICTIONS = (
    ("resume", ("overwrite",), "continues a run"),
    ("eval_only", ("resume", "overwrite"), "does not train"),
    ("check_data", ("eval_only", "resume", "overwrite"), "only decodes images"),
    ("check_data", ("ignore_class_names",), "loads no weights"),
    (
        "check_data",
        ("num_processes", "num_machines", "machine_rank", "dist_url"),
        "runs in one process",
    ),
    ("profile", ("eval_only", "check_data"), "traces a training"),
)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-train",
        description="Train or evaluate the image classifier or object detector of a config.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[import_option(), version_option()],
    )
    add = parser.add_argument
    config = "yaml file, or its name in model_zoo/"
    add("--config-file", required=True, metavar="FILE", help=config)
    add("--eval-only", action="store_true", help="only score MODEL.WEIGHTS or the last checkpoint")
    add("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    add("--overwrite", action="store_true", help="first remove an earlier run in OUTPUT_DIR")
    names = "let class names of weights and data differ, if the number of classes is the same"
    add("--ignore-class-names", action="store_true", help=names)
    add("--check-data", action="store_true", help="only check the data sets: decode all images")
    trace = "write a trace of N steps to OUTPUT_DIR, for Perfetto or TensorBoard"
    add("--profile", type=int, default=0, metavar="N", help=trace)
    processes = "processes on this machine, one per GPU (default: 1)"
    add("--num-processes", type=int, default=1, metavar="N", help=processes)
    machines = "number of machines (default: 1)"
    add("--num-machines", type=int, default=1, metavar="N", help=machines)
    rank = "rank of this machine, from 0 (default: 0)"
    add("--machine-rank", type=int, default=0, metavar="N", help=rank)
    url = "address of machine 0, tcp://HOST:PORT; auto on a single machine (default)"
    add("--dist-url", default="auto", metavar="URL", help=url)
    add("opts", nargs="*", metavar="KEY VALUE", help="config keys to override, with their values")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = make_parser()
    # Options may also follow KEY VALUE pairs.
    args = parser.parse_intermixed_args(argv)
    _check_options(parser, args)
    require_detectron2()
    import_code(args)
    from fbnetv3.engine.launch import launch
    from fbnetv3.engine.process import device_from_config
    from fbnetv3.training import check_datasets

    mode = _mode(args)
    cfg = _read_config(args.config_file, args.opts, in_run=mode in ("eval_only", "resume"))
    if args.check_data:
        return _check_data(cfg)
    if args.num_processes * args.num_machines > 1:
        check_datasets(cfg, training=not args.eval_only)
    launch(
        _run_process,
        (
            *(args.config_file, list(args.opts), cfg.OUTPUT_DIR, mode),
            *(args.ignore_class_names, args.profile, UserCode()),
        ),
        num_processes=args.num_processes,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        use_cuda=device_from_config(cfg).type == "cuda",
    )
    return 0


def _check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for option, others, reason in _CONTRADICTIONS:
        for other in others:
            given = [getattr(args, name) != parser.get_default(name) for name in (option, other)]
            if all(given):
                parser.error(f"{_flag(option)} {reason}: leave out {_flag(other)}")
    if args.profile < 0:
        parser.error(f"--profile {args.profile}: give a number of steps, 1 or more")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read_config(
    config_file: str, opts: list[str], output_dir: str | None = None, in_run: bool = False
) -> CfgNode:
    """Reads a config.

    Args:
        config_file: Path or packaged name of the file.
        opts: Keys and values that override those of the file.
        output_dir: OUTPUT_DIR, if the parent process has checked it; None: OUTPUT_DIR is read from
            ``opts`` or else from the file, whose value has to pass ``check_output_dir``.
        in_run: Whether OUTPUT_DIR, if not in ``opts``, becomes the config file's folder if that
            contains a run. The run is then found even if its folder was moved or the current folder
            is another one.
    """
    from fbnetv3.config import ConfigError, get_cfg
    from fbnetv3.config.files import check_output_dir, load_yaml
    from fbnetv3.engine.scoring import has_weights

    cfg = get_cfg()
    path = find_config(config_file)
    if "SEARCH" in load_yaml(path):
        raise ConfigError(
            f"{path} describes a search: run it with fbnetv3-search --config-file {config_file}; "
            "the search writes a config for each winning network, which fbnetv3-train accepts"
        )
    cfg.merge_from_file(str(path))
    if in_run and "OUTPUT_DIR" not in opts[::2] and has_weights(path.parent):
        output_dir = str(path.parent)
    if output_dir is None and "OUTPUT_DIR" not in opts[::2]:
        check_output_dir(cfg.OUTPUT_DIR, path)
    cfg.merge_from_list(opts)
    if output_dir is not None:
        cfg.OUTPUT_DIR = output_dir
    elif not cfg.OUTPUT_DIR:
        cfg.OUTPUT_DIR = os.path.join("output", path.stem)
    cfg.freeze()
    return cfg


def _check_data(cfg: CfgNode) -> int:
    from fbnetv3.config.archs import is_detector
    from fbnetv3.data.contact_sheet import save_sheet
    from fbnetv3.data.errors import DataError
    from fbnetv3.engine.logs import setup_logging

    setup_logging(None, 0)
    checks = _checked_detection(cfg) if is_detector(cfg) else _checked_classification(cfg)
    faulty = []
    for part, (summary, broken, picture) in zip(("train", "test"), checks, strict=True):
        for fault in broken:
            print(f"fault: {printable(fault)}")
        if broken:
            faulty.append(summary)
            continue
        print(f"{printable(summary)}: valid")
        if cfg.OUTPUT_DIR:
            path = Path(cfg.OUTPUT_DIR) / f"samples_{part}.png"
            save_sheet(picture, path)
            print(f"samples: {path}")
    if faulty:
        raise DataError(f"{'; '.join(faulty)}; the lines above name them")
    return 0


def _checked_detection(cfg: CfgNode) -> Iterator[tuple[str, Sequence[str], Any]]:
    from fbnetv3.detection.datasets import open_datasets
    from fbnetv3.detection.formats.check import picture_of

    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATA.CHECK_IMAGES = True  # otherwise the images are not decoded
    for dataset in open_datasets(cfg):
        yield dataset.summary(), (), picture_of(dataset)


def _checked_classification(cfg: CfgNode) -> Iterator[tuple[str, Sequence[str], Any]]:
    from fbnetv3.classification.build import datasets_from_config
    from fbnetv3.data import ImageDataset
    from fbnetv3.detection.formats.check import check_images

    for dataset in datasets_from_config(cfg):
        assert isinstance(dataset, ImageDataset)  # a name cannot stand for a stream
        checked = check_images(dataset)
        number = f"{len(checked.broken)} of {len(dataset)} images are broken"
        summary = f"{dataset.name}: {number}" if checked.broken else dataset.summary()
        yield summary, checked.broken, checked.picture


def _mode(args: argparse.Namespace) -> str:
    """Returns the mode that the options ask for: train, resume, overwrite or eval_only."""
    modes = [name for name in ("eval_only", "resume", "overwrite") if getattr(args, name)]
    return modes[0] if modes else "train"


def _weights_to_score(opts: list[str], folder: Path) -> str | None:
    """Returns the argument ``weights`` of ``evaluate``; see ``fbnetv3.training``.

    It is MODEL.WEIGHTS of the command line, else "" (the run's own weights) if the folder has a
    run, else None.
    """
    from fbnetv3.engine.scoring import holds_run

    given = dict(zip(opts[::2], opts[1::2], strict=True))
    return given.get("MODEL.WEIGHTS", "" if holds_run(folder) else None)


def _run_process(
    config_file: str,
    opts: list[str],
    output_dir: str,
    mode: str,
    ignore_class_names: bool,
    profile: int,
    code: UserCode,
) -> None:
    """Trains or evaluates in one of the launched processes, in a mode of :func:`_mode`.

    ``code`` was imported when this process unpickled it.
    """
    require_detectron2()  # first import in a new process; hides warnings of dependencies
    from fbnetv3.engine.logs import setup_logging
    from fbnetv3.engine.process import this_process
    from fbnetv3.training import evaluate, train

    cfg = _read_config(config_file, opts, output_dir)
    folder, rank = Path(cfg.OUTPUT_DIR), this_process().rank
    setup_logging(None if mode == "eval_only" else folder, rank)
    if mode == "eval_only":
        weights = _weights_to_score(opts, folder)
        scores: Mapping[str, float] = evaluate(
            cfg, weights=weights, ignore_class_names=ignore_class_names
        )
    else:
        scores = train(
            cfg,
            resume=mode == "resume",
            overwrite=mode == "overwrite",
            ignore_class_names=ignore_class_names,
            profile=profile,
        )
    if rank == 0:
        with guarded_streams():  # a launched process has streams of its own
            print(json.dumps({name: round(value, 4) for name, value in sorted(scores.items())}))
            sys.stdout.flush()


def cli() -> None:
    """Entry point of the console script."""
    status = run_main(main)
    if "RANK" in os.environ:
        from fbnetv3.engine.launch import end_rank

        end_rank(status)
    sys.exit(status)
