"""The loop over what a run consists of: optimizer, average, hooks, resumption."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import hooks as detectron_hooks
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fbnetv3.config import ConfigError
from fbnetv3.engine.checkpoint import Checkpointer, capture_rng, restore_rng
from fbnetv3.engine.distributed import BuffersHook, parallel, sync_batch_norm
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
    telling_disk_errors,
)
from fbnetv3.engine.metrics import drop_from
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.run import Run, load_model_state
from fbnetv3.engine.schedule import build_lr_scheduler
from fbnetv3.engine.trainer import Trainer

_log = logging.getLogger("fbnetv3")


class Training:
    """The pieces that change while training, and the loop over them."""

    def __init__(
        self,
        run: Run,
        checkpointer: Checkpointer,
        stop_after: float | None,
        on_eval: OnEval | None,
        pictures: bool,
        raw_scores: bool,
    ) -> None:
        self._run, self._checkpointer = run, checkpointer
        self._on_eval, self._pictures, self._raw_scores = on_eval, pictures, raw_scores
        recipe, per_epoch = run.recipe, run.loader.iters_per_epoch
        model = run.model
        if run.process.world_size > 1 and run.cfg.MODEL.SYNC_BN:
            model = sync_batch_norm(model, run.device)
        run.model = model
        self.optimizer = build_optimizer(model, recipe)
        self.ema = ModelEMA(model, recipe.ema_decay, recipe.ema_warmup) if recipe.ema else None
        epochs = recipe.epochs if stop_after is None else min(stop_after, recipe.epochs)
        self.start_iter, self.max_iter = 0, max(1, round(epochs * per_epoch))
        self._saved: dict[str, Any] | None = None
        self._trainer: Trainer

    def load(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint; lr, decays and the like are those of the present config.

        Raises:
            FBNetError: it is of another network, optimizer or other classes.
        """
        run = self._run
        load_model_state(run.model, state, run.classes)
        run.task.load_state(run.model, state.get("task", {}))
        _load_optimizer(self.optimizer, state, run.recipe.optimizer)
        self._load_ema(state["ema"])
        if state["data"]["iters_per_epoch"] != run.loader.iters_per_epoch:
            _log.warning(
                "an epoch had %d steps and has %d now",
                state["data"]["iters_per_epoch"],
                run.loader.iters_per_epoch,
            )
        self._saved = state
        restore_rng(state["rng"])
        self.start_iter = state["iteration"]

    def _load_ema(self, state: dict[str, Any] | None) -> None:
        recipe = self._run.recipe
        if not recipe.ema:
            return
        # made anew: where the checkpoint has none, it starts from the weights just loaded
        self.ema = ModelEMA(self._run.model, recipe.ema_decay, recipe.ema_warmup)
        if state is not None:
            settings = {"decay": recipe.ema_decay, "warmup": recipe.ema_warmup}
            self.ema.load_state_dict({**state, **settings})

    def state(self) -> dict[str, Any]:
        """Returns all that :meth:`load` needs; the next iteration is added by the saver."""
        run = self._run
        return {
            "model": unwrap(run.model).state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._trainer.scheduler.state_dict(),
            "scaler": self._trainer.scaler.state_dict(),
            "rng": capture_rng(),
            "data": {"seed": run.cfg.SEED, "iters_per_epoch": run.loader.iters_per_epoch},
            "recipe": run.recipe.to_dict(),
            "config": run.cfg.dump(),
            "arch": run.metadata["arch"],
            "classes": run.classes,
            "task": run.task.state(run.model),
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
            scheduler=self._scheduler(),
            batches=run.loader.batches(self.start_iter),
            task=run.task,
            seed=run.cfg.SEED,
            rank=run.process.rank,
            clip_grad_norm=run.recipe.clip_grad_norm,
            amp=run.recipe.amp,
            device=run.device,
        )
        if self._saved is not None and self._saved["scaler"]:
            self._trainer.scaler.load_state_dict(self._saved["scaler"])
        self._trainer.register_hooks(self._hooks())
        self._trainer.train(self.start_iter, self.max_iter)

    def _scheduler(self) -> LRScheduler:
        per_epoch = self._run.loader.iters_per_epoch
        scheduler = build_lr_scheduler(
            self.optimizer, self._run.recipe, per_epoch, self.start_iter - 1
        )
        if self._saved is not None:
            own = {"base_lrs": scheduler.base_lrs, "_last_lr": scheduler.get_last_lr()}
            scheduler.load_state_dict({**self._saved["scheduler"], **own})
        return scheduler

    def _hooks(self) -> list[detectron_hooks.HookBase]:
        run, cfg = self._run, self._run.cfg
        evaluating = Every(self._period(cfg.TEST.EVAL_EPOCHS, cfg.TEST.EVAL_PERIOD))
        saving = Every(self._period(cfg.SOLVER.CHECKPOINT_EPOCHS, cfg.SOLVER.CHECKPOINT_PERIOD))
        found: list[detectron_hooks.HookBase] = [
            detectron_hooks.IterationTimer(),
            detectron_hooks.LRScheduler(),
        ]
        if run.process.world_size > 1 and not cfg.MODEL.SYNC_BN:
            found.append(BuffersHook())
        if self.ema is not None:
            found.append(EMAHook(self.ema))
        found.append(EvalHook(evaluating, self.ema, _log.info, self._tell_epochs, self._raw_scores))
        if not run.is_main:
            return found
        if run.console.is_terminal:
            found.append(ProgressHook(run.console))
        dues = [Every(cfg.SOLVER.LOG_PERIOD), evaluating, saving]
        found.append(WriterHook(self._writers(), dues, run.folder))
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
        with telling_disk_errors(folder):
            writers: list[EventWriter] = [JSONWriter(str(folder / "metrics.json"))]
            if self._pictures:
                writers.append(TensorboardXWriter(str(folder), purge_step=start))
        if not self._run.console.is_terminal:
            writers.insert(0, CommonMetricPrinter(self.max_iter))
        return writers


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any], name: str) -> None:
    before = state["recipe"]["optimizer"]
    if before != name:
        raise ConfigError(
            f"SOLVER.OPTIMIZER is {name}, the checkpoint's is {before}: set it back, or start "
            "anew from the weights (MODEL.WEIGHTS) in another OUTPUT_DIR"
        )
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting, initial_lr=setting["lr"])  # which the schedule multiplies
