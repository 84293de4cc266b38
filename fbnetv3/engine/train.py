"""One training or evaluation, from a config to the files in its folder."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import hooks as detectron_hooks
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from rich.console import Console
from rich.table import Table
from torch import nn

from fbnetv3.arch import Arch, count_cost
from fbnetv3.config import CfgNode, ConfigError, recipe_from_config
from fbnetv3.engine import build
from fbnetv3.engine.checkpoint import Checkpointer, capture_rng, export_weights, restore_rng
from fbnetv3.engine.classification import ClassificationTask
from fbnetv3.engine.distributed import parallel, sync_batch_norm
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.engine.hooks import (
    CheckpointHook,
    CurvesHook,
    EMAHook,
    EvalHook,
    Every,
    OnEval,
    ProgressHook,
    StopHook,
    WriterHook,
    evaluate_both,
    format_scores,
)
from fbnetv3.engine.metrics import drop_from, last_scores
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.schedule import build_lr_scheduler, lr_table
from fbnetv3.engine.trainer import Task, Trainer
from fbnetv3.io import atomic_write
from fbnetv3.recipe import Recipe
from fbnetv3.zoo import load_weights

_log = logging.getLogger("fbnetv3")


@dataclass
class Run:
    """What a training or evaluation works with; made by :func:`prepare`."""

    cfg: CfgNode
    folder: Path
    process: build.Process
    device: torch.device
    recipe: Recipe
    arch: Arch | str
    classes: list[str]
    preprocessing: dict[str, Any]
    model: nn.Module
    task: Task
    loader: build.TrainLoader
    console: Console

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.process.rank == 0


def this_process() -> build.Process:
    """Returns the rank and world size, (0, 1) where no process group was joined."""
    if not dist.is_initialized():
        return build.Process()
    return build.Process(dist.get_rank(), dist.get_world_size())


def prepare(cfg: CfgNode) -> Run:
    """Opens data and builds the network that a config describes.

    Raises:
        FBNetError: something in the config or the data does not fit; one line says what to do.
    """
    process, device = this_process(), build.device_from_config(cfg)
    console = Console(stderr=True, quiet=process.rank != 0)
    train_set, test_set = build.datasets_from_config(cfg)
    arch = build.arch_from_config(cfg)
    preprocessing = build.preprocessing_from_config(cfg, arch)
    recipe = recipe_from_config(cfg, max(1, len(train_set) // cfg.SOLVER.IMS_PER_BATCH))
    num_classes = build.num_classes_from_config(cfg, train_set)
    torch.manual_seed(cfg.SEED)  # the initial weights
    model = build.network_from_config(arch, num_classes, recipe, device)
    if cfg.MODEL.WEIGHTS:
        summary = load_weights(model, cfg.MODEL.WEIGHTS, allow_new_head=True)
        _log.info("%s", summary)
    resolution = preprocessing["resolution"]
    task = ClassificationTask(
        num_classes=num_classes,
        eval_loader=build.eval_loader_from_config(cfg, test_set, preprocessing, process),
        device=device,
        mixup=recipe.mixup,
        label_smoothing=recipe.label_smoothing,
        seed=cfg.SEED,
        amp=recipe.amp,
        progress=process.rank == 0 and console.is_terminal,
    )
    return Run(
        cfg=cfg,
        folder=Path(cfg.OUTPUT_DIR),
        process=process,
        device=device,
        recipe=recipe,
        arch=arch,
        classes=list(train_set.classes),
        preprocessing=preprocessing,
        model=model,
        task=task,
        loader=build.train_loader_from_config(cfg, train_set, recipe, resolution, process),
        console=console,
    )


def train(
    cfg: CfgNode,
    *,
    resume: bool = False,
    stop_after: float | None = None,
    on_eval: OnEval | None = None,
    pictures: bool = True,
) -> dict[str, float]:
    """Trains as the config says, or goes on from the folder's last checkpoint.

    OUTPUT_DIR gets config.yaml, log.txt, metrics.json, TensorBoard events, curves.png,
    checkpoints, and in the end model.safetensors and model_ema.safetensors.

    Args:
        cfg: a config.
        resume: go on from the last checkpoint, where there is one.
        stop_after: train so many epochs of the config's schedule only; None: all.
        on_eval: called at each evaluation with the epochs trained so far and the scores.
        pictures: whether curves.png and TensorBoard events are written.

    Returns:
        The last scores: ``val/top1``, ``val/top1_ema`` and the like.

    Raises:
        FBNetError: bad input, a non-finite loss, a full disk, a stop by signal.
    """
    folder = Path(cfg.OUTPUT_DIR)
    checkpointer = Checkpointer(folder, keep=cfg.SOLVER.KEEP_CHECKPOINTS)
    state = _state_to_resume(checkpointer, resume)
    run = prepare(cfg)
    if run.is_main:
        _start_folder(run, state)
    training = _Training(run, checkpointer, stop_after, on_eval, pictures)
    if state is not None:
        training.load(state)
    if run.is_main:
        _print_plan(run, training)
    if training.start_iter < training.max_iter:
        training.run()
    if run.is_main:
        _export(run, training.ema)
    return last_scores(folder / "metrics.json") if run.is_main else {}


def evaluate(cfg: CfgNode) -> dict[str, float]:
    """Scores MODEL.WEIGHTS, or the last checkpoint in OUTPUT_DIR, raw and averaged.

    Raises:
        FBNetError: there are no weights, or they don't fit.
    """
    latest = Checkpointer(cfg.OUTPUT_DIR).latest() if not cfg.MODEL.WEIGHTS else None
    if latest is None and not cfg.MODEL.WEIGHTS:
        raise ConfigError(
            f"nothing to evaluate: {cfg.OUTPUT_DIR} has no checkpoint; give MODEL.WEIGHTS, as "
            "zoo://NAME or a file"
        )
    run = prepare(cfg)
    ema = None
    if latest is not None:
        state = Checkpointer(cfg.OUTPUT_DIR).load(latest)
        run.model.load_state_dict(state["model"])
        if state["ema"] is not None:
            ema = ModelEMA(run.model, run.recipe.ema_decay)
            ema.load_state_dict(state["ema"])
    scores = evaluate_both(run.task, run.model, ema)
    _log.info("%s: %s", latest or cfg.MODEL.WEIGHTS, format_scores(scores))
    return scores


class _Training:
    """The pieces that change while training, and the loop over them."""

    def __init__(
        self,
        run: Run,
        checkpointer: Checkpointer,
        stop_after: float | None,
        on_eval: OnEval | None,
        pictures: bool,
    ) -> None:
        self._run, self._checkpointer = run, checkpointer
        self._on_eval, self._pictures = on_eval, pictures
        recipe, per_epoch = run.recipe, run.loader.iters_per_epoch
        model = run.model
        if run.process.world_size > 1 and run.cfg.MODEL.SYNC_BN:
            model = sync_batch_norm(model, run.device)
        run.model = model
        self.optimizer = build_optimizer(model, recipe)
        self.scheduler = build_lr_scheduler(self.optimizer, recipe, per_epoch)
        self.ema = ModelEMA(model, recipe.ema_decay, recipe.ema_warmup) if recipe.ema else None
        epochs = recipe.epochs if stop_after is None else min(stop_after, recipe.epochs)
        self.start_iter, self.max_iter = 0, max(1, round(epochs * per_epoch))
        self._scaler_state: dict[str, Any] = {}
        self._trainer: Trainer | None = None

    def load(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint."""
        self._run.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        self._scaler_state = state["scaler"]
        restore_rng(state["rng"])
        self.start_iter = state["iteration"]

    def state(self) -> dict[str, Any]:
        """Returns all that :meth:`load` needs; the next iteration is added by the saver."""
        run = self._run
        return {
            "model": unwrap(run.model).state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": {} if self._trainer is None else self._trainer.scaler.state_dict(),
            "rng": capture_rng(),
            "data": {"seed": run.cfg.SEED, "iters_per_epoch": run.loader.iters_per_epoch},
            "recipe": run.recipe.to_dict(),
            "config": run.cfg.dump(),
            "arch": run.arch.to_yaml() if isinstance(run.arch, Arch) else run.arch,
            "classes": run.classes,
        }

    def run(self) -> None:
        """Runs the loop with its hooks."""
        run = self._run
        model = run.model.train()
        if run.process.world_size > 1:
            model = parallel(model, run.device)
        self._trainer = Trainer(
            model=model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            batches=run.loader.batches(self.start_iter),
            task=run.task,
            seed=run.cfg.SEED,
            rank=run.process.rank,
            clip_grad_norm=run.recipe.clip_grad_norm,
            amp=run.recipe.amp,
            device=run.device,
        )
        if self._scaler_state:
            self._trainer.scaler.load_state_dict(self._scaler_state)
        self._trainer.register_hooks(self._hooks())
        self._trainer.train(self.start_iter, self.max_iter)

    def _hooks(self) -> list[detectron_hooks.HookBase]:
        run, cfg = self._run, self._run.cfg
        evaluating = Every(self._period(cfg.TEST.EVAL_EPOCHS, cfg.TEST.EVAL_PERIOD))
        saving = Every(self._period(cfg.SOLVER.CHECKPOINT_EPOCHS, cfg.SOLVER.CHECKPOINT_PERIOD))
        found: list[detectron_hooks.HookBase] = [
            detectron_hooks.IterationTimer(),
            detectron_hooks.LRScheduler(),
        ]
        if self.ema is not None:
            found.append(EMAHook(self.ema))
        found.append(EvalHook(evaluating, self.ema, _log.info, self._tell_epochs))
        if not run.is_main:
            return found
        if run.console.is_terminal:
            found.append(ProgressHook(run.console))
        dues = [Every(cfg.SOLVER.LOG_PERIOD), evaluating, saving]
        found.append(WriterHook(self._writers(), dues))
        if self._pictures:
            found.append(CurvesHook(evaluating, run.folder))
        checkpoints = CheckpointHook(self._checkpointer, saving, self.state)
        found.append(checkpoints)
        if run.process.world_size == 1:
            found.append(StopHook(checkpoints.save))
        return found

    def _tell_epochs(self, iterations: float, scores: dict[str, float]) -> None:
        if self._on_eval is not None:
            self._on_eval(iterations / self._run.loader.iters_per_epoch, scores)

    def _period(self, epochs: float, iterations: int) -> int:
        return max(1, round(epochs * self._run.loader.iters_per_epoch)) if epochs else iterations

    def _writers(self) -> list[EventWriter]:
        folder, start = self._run.folder, self.start_iter
        drop_from(folder / "metrics.json", start)
        writers: list[EventWriter] = [JSONWriter(str(folder / "metrics.json"))]
        if self._pictures:
            writers.append(TensorboardXWriter(str(folder), purge_step=start))
        if not self._run.console.is_terminal:
            writers.insert(0, CommonMetricPrinter(self.max_iter))
        return writers


def _state_to_resume(checkpointer: Checkpointer, resume: bool) -> dict[str, Any] | None:
    latest = checkpointer.latest()
    if resume:
        if latest is None:
            _log.info("no checkpoint to resume from: starting anew")
            return None
        return checkpointer.load(latest)
    if latest is not None:
        raise ConfigError(
            f"{latest.parent} holds a run ({latest.name}): go on with it by --resume, start anew "
            "by --overwrite, or choose another OUTPUT_DIR"
        )
    return None


def _start_folder(run: Run, state: dict[str, Any] | None) -> None:
    """Saves the config, and says what differs from the one that a resumed run began with."""
    if state is not None:
        for line in _differences(state["config"], run.cfg.dump()):
            _log.warning("resumed with another value than before: %s", line)
    with atomic_write(run.folder / "config.yaml") as temporary:
        temporary.write_text(run.cfg.dump())


def _differences(before: str, now: str) -> list[str]:
    old, new = (set(text.splitlines()) for text in (before, now))
    return sorted(line.strip() for line in new - old if "OUTPUT_DIR" not in line)


def _print_plan(run: Run, training: _Training) -> None:
    table = Table(show_header=False, title="Training plan")
    for name, value in _network_rows(run):
        table.add_row(name, value)
    images = len(run.loader.dataset)
    per_epoch, world_size = run.loader.iters_per_epoch, run.process.world_size
    for name, value in lr_table(run.recipe, world_size, per_epoch, images):
        table.add_row(name, value)
    table.add_row("starts at step", f"{training.start_iter}")
    table.add_row("device", f"{run.device}, {torch.get_num_threads()} thread(s) per process")
    table.add_row("folder", str(run.folder))
    run.console.print(table)


def _network_rows(run: Run) -> list[tuple[str, str]]:
    side = run.preprocessing["resolution"]
    if not isinstance(run.arch, Arch):
        params = sum(p.numel() for p in run.model.parameters())
        return [("network", f"{run.arch} at {side} px: {params / 1e6:.2f}M params")]
    cost = count_cost(run.arch.replace(num_classes=len(run.classes)), side)
    text = f"{cost.macs / 1e6:.1f}M MACs, {cost.params / 1e6:.2f}M params"
    return [("network", f"{run.arch.name} at {side} px: {text}")]


def _export(run: Run, ema: ModelEMA | None) -> None:
    """Writes the weights for use elsewhere: ``tools/predict.py``, MODEL.WEIGHTS, other programs."""
    metadata = {
        "arch": run.arch.to_yaml() if isinstance(run.arch, Arch) else run.arch,
        "classes": json.dumps(run.classes),
        "recipe": json.dumps(run.recipe.to_dict()),
        **{key: json.dumps(value) for key, value in run.preprocessing.items()},
    }
    model = unwrap(run.model)
    export_weights(model.state_dict(), run.folder / "model.safetensors", metadata)
    if ema is not None:
        export_weights(ema.model_state_dict(), run.folder / "model_ema.safetensors", metadata)


def setup_logging(folder: Path | None, rank: int) -> None:
    """Sends our log and detectron2's to the terminal and, from rank 0, to ``log.txt``."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if folder is not None and rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(folder / "log.txt"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        handler.addFilter(_without_our_tracebacks)
    for name in ("fbnetv3", "detectron2", "fvcore"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
        logger.handlers = list(handlers)
        logger.propagate = False


def _without_our_tracebacks(record: logging.LogRecord) -> bool:
    """detectron2's loop logs every exception with its traceback; ours are told in one line."""
    from fbnetv3.errors import FBNetError

    return not (record.exc_info and isinstance(record.exc_info[1], FBNetError))
