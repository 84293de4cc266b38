"""The command ``fbnetv3-train``: trains or evaluates the classifier or detector of a config."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.cli import run_main
from fbnetv3.requires import require_detectron2
from fbnetv3.resources import find_config
from fbnetv3.streams import guarded_streams

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


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-train",
        description="Train or evaluate the classifier or detector of a config.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    config = "yaml file, or its name in model_zoo/"
    add("--config-file", required=True, metavar="FILE", help=config)
    add("--eval-only", action="store_true", help="only score MODEL.WEIGHTS or the last checkpoint")
    add("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    add("--overwrite", action="store_true", help="first remove an earlier run in OUTPUT_DIR")
    add("--check-data", action="store_true", help="only check the data sets of a detector")
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
    if args.resume and args.overwrite:
        parser.error("--resume continues a run and --overwrite removes it: give only one of them")
    require_detectron2()
    from fbnetv3.engine.launch import launch
    from fbnetv3.engine.process import device_from_config
    from fbnetv3.training import check_datasets

    cfg = _read_config(args.config_file, args.opts)
    if args.check_data:
        return _check_data(cfg)
    if args.num_processes * args.num_machines > 1:
        check_datasets(cfg, training=not args.eval_only)
    launch(
        _run_process,
        (args.config_file, list(args.opts), cfg.OUTPUT_DIR, _mode(args)),
        num_processes=args.num_processes,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        use_cuda=device_from_config(cfg).type == "cuda",
    )
    return 0


def _read_config(config_file: str, opts: list[str], output_dir: str | None = None) -> CfgNode:
    from fbnetv3.config import ConfigError, get_cfg
    from fbnetv3.config.files import check_output_dir, load_yaml

    cfg = get_cfg()
    path = find_config(config_file)
    if "SEARCH" in load_yaml(path):
        raise ConfigError(
            f"{path} describes a search: run it with fbnetv3-search --config-file {config_file}; "
            "it writes configs of its best networks, which fbnetv3-train takes"
        )
    cfg.merge_from_file(str(path))
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
    from fbnetv3.config import ConfigError
    from fbnetv3.config.archs import is_detector
    from fbnetv3.engine.logs import setup_logging

    if not is_detector(cfg):
        raise ConfigError("--check-data is only for detectors; this config describes a classifier")
    from fbnetv3.detection.datasets import open_datasets

    setup_logging(None, 0)
    for dataset in open_datasets(cfg):
        boxes = sum(len(record["annotations"]) for record in dataset.records)
        classes = len(dataset.classes)
        print(f"{dataset.name}: {len(dataset)} images, {boxes} boxes, {classes} classes: valid")
    return 0


def _mode(args: argparse.Namespace) -> str:
    """Returns the mode that the options ask for: train, resume, overwrite or eval_only."""
    modes = [name for name in ("eval_only", "resume", "overwrite") if getattr(args, name)]
    return modes[0] if modes else "train"


def _run_process(config_file: str, opts: list[str], output_dir: str, mode: str) -> None:
    """Trains or evaluates in one of the processes, in a mode that :func:`_mode` returned."""
    require_detectron2()  # in a new process, without the warnings of its dependencies
    from fbnetv3.engine.folder import clear_run
    from fbnetv3.engine.logs import setup_logging
    from fbnetv3.engine.process import this_process
    from fbnetv3.training import evaluate, train

    cfg = _read_config(config_file, opts, output_dir)
    folder, rank = Path(cfg.OUTPUT_DIR), this_process().rank
    if mode == "overwrite":
        clear_run(folder, rank)
    setup_logging(None if mode == "eval_only" else folder, rank)
    scores = evaluate(cfg) if mode == "eval_only" else train(cfg, resume=mode == "resume")
    if rank == 0:
        with guarded_streams():  # those of this process
            print(json.dumps({name: round(value, 4) for name, value in sorted(scores.items())}))
            sys.stdout.flush()


def cli() -> None:
    """Entry point of the console script."""
    status = run_main(main)
    if "RANK" in os.environ:
        from fbnetv3.engine.launch import end_rank

        end_rank(status)
    sys.exit(status)
