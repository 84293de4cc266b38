"""Compares the step time of this project's training loop with detectron2's DefaultTrainer.

    OMP_NUM_THREADS=1 python -m projects.retinanet_ema.step_time \\
        --config-file detection/retinanet_fbnetv3_a0_bccd.yaml --steps 60

Three trainings of the same detector take steps in turn in one process, each on its copy of the
model: DefaultTrainer with detectron2's optimizer, schedule and hooks; this loop without EMA; and
this loop with EMA. Step i of all three has the same batch, so step times are compared in pairs.
Step times are CPU times of the process, which depend less on other work on the machine than wall
times. The first steps are not compared. The cost of EMA is printed as the ratio of step times with
and without it, and as the time of its hook.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from tabulate import tabulate
from torch import nn

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.prepare import prepare_detector
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.experiment import Experiment
from fbnetv3.engine.hooks import EMAHook, Every, WriterHook
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.process import runtime_context
from fbnetv3.engine.schedule import build_lr_scheduler
from fbnetv3.engine.trainer import Trainer
from fbnetv3.resources import find_config

DETECTRON2, OURS, WITH_EMA = "detectron2", "this loop", "this loop, EMA"
_LOSSES = ("loss_cls", "loss_box_reg")
_LOG_PERIOD = 20  # as in detectron2
_LAST = 1 << 20  # iterations; never reached, so there is no evaluation and no checkpoint
_WARMUP = 32  # iterations; a power of 2, like _LAST, so that both schedules compute the same lr


@dataclass
class Record:
    """Step times and losses of one trainer.

    Attributes:
        times: CPU seconds of each step.
        losses: Classification and box regression loss of each step.
    """

    times: list[float] = field(default_factory=list)
    losses: list[tuple[float, ...]] = field(default_factory=list)


class TimedEMAHook(EMAHook):
    """EMAHook that records the CPU seconds of each update.

    Args:
        ema: Averaged model.
        times: List that the seconds are appended to.
    """

    def __init__(self, ema: ModelEMA, times: list[float]) -> None:
        super().__init__(ema)
        self._times = times

    def after_step(self) -> None:
        """Updates the averaged weights, and records the time."""
        start = time.process_time()
        super().after_step()
        self._times.append(time.process_time() - start)


def shared_config(cfg: CfgNode) -> CfgNode:
    """Returns the config with a schedule that both loops have: linear warm-up, then constant lr.

    Cosine schedules would differ: in detectron2 the cosine starts with the warm-up, in this loop
    after it.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.STEPS = "steps", ()
    cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 0.0, _LAST, _WARMUP
    # with equal batch sizes, MAX_ITER and WARMUP_ITERS are not rescaled
    cfg.SOLVER.BASE_LR *= cfg.SOLVER.IMS_PER_BATCH / cfg.SOLVER.REFERENCE_BATCH
    cfg.SOLVER.REFERENCE_BATCH = cfg.SOLVER.IMS_PER_BATCH
    cfg.freeze()
    return cfg


def detectron2_trainer(cfg: CfgNode, run: Experiment, folder: Path) -> TrainerBase:
    """Returns detectron2's default trainer on the model and batches of a run.

    Args:
        cfg: Config of the detector.
        run: Model and batches.
        folder: Output folder.
    """

    class RunTrainer(DefaultTrainer):
        @classmethod
        def build_model(cls, cfg: CfgNode) -> nn.Module:
            return run.model

        @classmethod
        def build_train_loader(cls, cfg: CfgNode) -> Iterator[Any]:
            return run.loader.batches()

    full = cfg.clone()
    full.defrost()
    full.SOLVER.LR_SCHEDULER_NAME, full.OUTPUT_DIR = "WarmupMultiStepLR", str(folder)
    full.MODEL.WEIGHTS = ""  # the run has loaded them
    full.freeze()
    trainer = RunTrainer(full)
    trainer.start_iter = trainer.iter = 0
    return trainer


def our_trainer(run: Experiment, folder: Path, ema_times: list[float] | None = None) -> TrainerBase:
    """Returns this project's trainer on the model and batches of a run, with its hooks.

    Args:
        run: Model, recipe and batches.
        folder: Output folder.
        ema_times: List for the EMA times that ``TimedEMAHook`` records. None trains without EMA.
    """
    optimizer = build_optimizer(run.model.train(), run.recipe)
    trainer = Trainer(
        model=run.model,
        optimizer=optimizer,
        scheduler=build_lr_scheduler(optimizer, run.recipe, run.loader.iters_per_epoch),
        batches=run.loader.batches(),
        task=run.task,
        seed=run.cfg.SEED,
        device=run.context.device,
    )
    run_hooks: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler()]
    if ema_times is not None:
        ema = ModelEMA(run.model, run.recipe.ema_decay, run.recipe.ema_warmup)
        run_hooks.append(TimedEMAHook(ema, ema_times))
    writers = [JSONWriter(str(folder / "metrics.json")), TensorboardXWriter(str(folder))]
    trainer.register_hooks([*run_hooks, WriterHook(writers, [Every(_LOG_PERIOD)], folder)])
    trainer.start_iter, trainer.max_iter = 0, _LAST
    return trainer


def step_of(trainer: TrainerBase) -> Callable[[Record], None]:
    """Returns a function that runs one training step and appends it to a record."""
    trainer.storage = EventStorage(0)
    with trainer.storage:
        trainer.before_train()

    def step(record: Record) -> None:
        start = time.process_time()
        with trainer.storage:
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
        record.times.append(time.process_time() - start)
        latest = trainer.storage.latest()
        record.losses.append(tuple(latest[name][0] for name in _LOSSES))
        trainer.iter += 1

    return step


def compare(cfg: CfgNode, steps: int, skip: int = 5) -> dict[str, Any]:
    """Runs the three trainings and compares their step times and losses.

    Args:
        cfg: Config of a RetinaNet.
        steps: Steps of each training.
        skip: Number of first steps whose times are not compared.

    Returns:
        Median seconds per step of each trainer, median ratios and their quartiles, the percentage
        of a step that EMA takes, and the number of first steps with bitwise equal losses.
    """
    records, ema_times = train_in_turn(shared_config(cfg), steps)
    times = {name: record.times[skip:] for name, record in records.items()}
    losses = {name: record.losses for name, record in records.items()}
    steps_with_ema = zip(ema_times[skip:], times[WITH_EMA], strict=True)
    ema_share = [update / step for update, step in steps_with_ema]
    return {
        "steps": steps - skip,
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "ours / detectron2": _ratio(times[OURS], times[DETECTRON2]),
        "with EMA / without": _ratio(times[WITH_EMA], times[OURS]),
        "EMA hook, % of a step": 100 * statistics.median(ema_share),
        "equal losses of detectron2 and ours": _equal(losses[DETECTRON2], losses[OURS]),
        "equal losses with and without EMA": _equal(losses[WITH_EMA], losses[OURS]),
    }


def train_in_turn(cfg: CfgNode, steps: int) -> tuple[dict[str, Record], list[float]]:
    """Runs the steps of the three trainings in alternating order.

    Args:
        cfg: Config of a RetinaNet, with a schedule that both loops have.
        steps: Steps of each training.

    Returns:
        Records by trainer, and the CPU seconds of each EMA update.
    """
    ema_times: list[float] = []
    records = {name: Record() for name in (DETECTRON2, OURS, WITH_EMA)}
    # TensorBoard's thread may still write when the folder is removed
    with TemporaryDirectory(ignore_cleanup_errors=True) as root:
        folders = {name: Path(root, name.replace(" ", "_")) for name in records}
        for folder in folders.values():
            folder.mkdir()
        runs = {name: prepare_detector(cfg, runtime_context(cfg)) for name in records}
        trainers = {
            DETECTRON2: detectron2_trainer(cfg, runs[DETECTRON2], folders[DETECTRON2]),
            OURS: our_trainer(runs[OURS], folders[OURS]),
            WITH_EMA: our_trainer(runs[WITH_EMA], folders[WITH_EMA], ema_times),
        }
        run_step = {name: step_of(trainer) for name, trainer in trainers.items()}
        orders = itertools.cycle(itertools.permutations(run_step))
        for order in itertools.islice(orders, steps):
            for name in order:
                run_step[name](records[name])
    return records, ema_times


def _ratio(one: list[float], other: list[float]) -> dict[str, float]:
    """Returns the median and the quartiles of the ratios of paired values."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": middle, "quartile 1": low, "quartile 3": high}


def _equal(one: list[tuple[float, ...]], other: list[tuple[float, ...]]) -> int:
    """Returns the number of steps before the first one with different losses."""
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=True))
    return sum(1 for _ in equal)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the comparison as a table, and as JSON on the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--config-file",
        default="detection/retinanet_fbnetv3_a0_bccd.yaml",
        help="config of a RetinaNet",
    )
    parser.add_argument("--steps", type=int, default=100, help="steps of each training")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    args = parser.parse_intermixed_args(argv)
    # DefaultTrainer would print the whole model
    for name in ("detectron2", "fvcore", "fbnetv3"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config(args.config_file)))
    cfg.merge_from_list(args.opts)
    results = compare(cfg, args.steps)
    rows = [[name, str(value)] for name, value in results.items()]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    print(tabulate(rows, disable_numparse=True))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
