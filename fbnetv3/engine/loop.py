"""The training of an experiment: optimizer, moving average, hooks, and resumption."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, JSONWriter
from torch.optim.lr_scheduler import LRScheduler

from fbnetv3.config import ConfigError
from fbnetv3.engine.additions import (
    Additions,
    added_hooks,
    added_writers,
    hook_states,
    load_hook_states,
)
from fbnetv3.engine.best import BestHook, EarlyStop, EarlyStopHook, best_score_from_config
from fbnetv3.engine.checkpoint import Checkpointer, load_model_state, load_optimizer_state
from fbnetv3.engine.compiling import CompiledNetwork
from fbnetv3.engine.detectron2_loop import hooks as detectron_hooks
from fbnetv3.engine.distributed import (
    BroadcastBuffersHook,
    parallel,
    sync_batch_norm,
    unsynchronised_norms,
)
from fbnetv3.engine.ema import ModelEMA, unwrap
from fbnetv3.engine.experiment import Experiment
from fbnetv3.engine.freezing import FrozenNormsHook, freeze
from fbnetv3.engine.hooks import (
    CheckpointHook,
    CurvesHook,
    EMAHook,
    EvalHook,
    Every,
    OnEval,
    ProgressHook,
    ReadLossesHook,
    WriterHook,
    check_weights,
    disk_errors_as_write_errors,
)
from fbnetv3.engine.losses import READ_PERIOD
from fbnetv3.engine.metrics import drop_from, recent_values
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.precision import amp_dtype
from fbnetv3.engine.printer import StepPrinter
from fbnetv3.engine.rng import capture_rng, restore_rng
from fbnetv3.engine.schedule import build_lr_scheduler, num_steps
from fbnetv3.engine.speed import ProfileHook, SpeedHook
from fbnetv3.engine.stop import StopAgreement, StopHook
from fbnetv3.engine.trainer import Trainer
from fbnetv3.recipe import Recipe

_log = logging.getLogger("fbnetv3")


class Training:
    """The state of a training that changes from step to step, and the loop over the steps.

    Args:
        experiment: Training to run, as its task prepared it.
        checkpointer: Writer of the checkpoints.
        stop_after: Number of epochs to stop after; None for the recipe's length.
        on_eval: Function called after each evaluation with the epochs so far and the scores.
        pictures: Whether to write curves.png and TensorBoard events.
        raw_scores: Whether to score the raw weights, too, if an average of them is kept.
        profile: Number of steps to trace; 0 writes no trace.
        additions: Hooks and writers besides those that the config names.

    Attributes:
        optimizer: Optimizer over the network's parameters.
        ema: Moving average of the weights; None if MODEL_EMA.ENABLED is False.
        epochs: Length of the training in epochs.
        start_iter: First step to run.
        best: Best score so far; None without SOLVER.KEEP_BEST.

    Raises:
        FBNetError: A value of the config does not fit the network, its scores or the processes.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpointer: Checkpointer,
        stop_after: float | None,
        on_eval: OnEval | None,
        pictures: bool,
        raw_scores: bool,
        profile: int = 0,
        additions: Additions | None = None,
    ) -> None:
        self._experiment, self._checkpointer = experiment, checkpointer
        self._on_eval, self._pictures, self._raw_scores = on_eval, pictures, raw_scores
        self._profile, self._additions = profile, additions or Additions()
        self._cfg, self._recipe = experiment.cfg, experiment.recipe
        self._config = self._cfg.dump()  # every checkpoint has it
        self._context, self._loader = experiment.context, experiment.loader
        self._distributed = self._context.process.world_size > 1
        _check_passes(self._recipe, self._context.process.world_size)
        if self._distributed and self._cfg.MODEL.SYNC_BN:
            experiment.model = sync_batch_norm(experiment.model, self._context.device)
        self._frozen_norms = freeze(experiment.model, self._recipe.freeze)
        self.optimizer = build_optimizer(experiment.model, self._recipe)
        self.ema = self._new_ema() if self._recipe.ema else None
        self.epochs = (
            self._recipe.epochs if stop_after is None else min(stop_after, self._recipe.epochs)
        )
        self.start_iter, self._offset = 0, 0  # offset: see build_lr_scheduler
        self._length = num_steps(self.epochs, self._loader.iters_per_epoch)
        scores = experiment.task.score_names
        self.best = best_score_from_config(self._cfg, scores, self._recipe.ema, raw_scores)
        self._added_hooks = added_hooks(self._cfg, self._additions)
        self._stopped_at: int | None = None
        self._resumed: dict[str, Any] | None = None
        self._trainer: Trainer

    @property
    def max_iter(self) -> int:
        """Index of the last step, plus 1."""
        return self._length + self._offset

    @property
    def epochs_done(self) -> float:
        """Epochs of the schedule before the first step to run."""
        return self._epochs_of(self.start_iter)

    @property
    def has_steps_left(self) -> bool:
        """Whether :meth:`run` would run a step; False after an early stop."""
        return self.start_iter < self.max_iter and self._stopped_at is None

    def best_scores(self) -> dict[str, float]:
        """Returns the best score, its epoch and, after an early stop, the epoch of the end.

        The result is empty without SOLVER.KEEP_BEST, and if no score was finite.
        """
        best = self.best
        if best is None or best.score is None:
            return {}
        result = {f"best/{best.metric}": best.score, "best/epoch": best.epoch}
        if self._stopped_at is not None:
            result["stopped_early/epoch"] = self._epochs_of(self._stopped_at)
        return result

    def _epochs_of(self, iteration: float) -> float:
        return (iteration - self._offset) / self._loader.iters_per_epoch

    def load(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint, with the learning rate, decays etc. of the current config.

        Step numbers continue from the checkpoint's. If an epoch has another number of steps
        than before (another batch size or data set), the position in the schedule is kept in
        epochs, rounded down to a whole step: at most one batch is repeated, and none is left out.

        Args:
            state: State of the checkpoint, as :meth:`state` returned it.

        Raises:
            FBNetError: The checkpoint is of another network, optimizer or set of classes, or lacks
                the state of a random generator.
        """
        experiment = self._experiment
        load_model_state(experiment.model, state, experiment.classes)
        experiment.task.load_state(experiment.model, state.get("task", {}))
        load_optimizer_state(self.optimizer, state, self._recipe.optimizer)
        self._load_ema(state["ema"])
        self.start_iter = state["iteration"]
        self._offset = self.start_iter - self._position(state)
        if self.best is not None:
            self.best.load_state(state.get("best"), state["data"])
            if self.best.is_over and self.start_iter < self.max_iter:
                self._stopped_at = self.start_iter
        load_hook_states(self._added_hooks, state.get("hooks", []))
        self._resumed = state
        restore_rng(state["rng"])

    def _position(self, state: dict[str, Any]) -> int:
        """Returns the position of a checkpoint in the schedule, in steps of this training."""
        data, now = state["data"], self._loader.iters_per_epoch
        position: int = state["iteration"] - data.get("offset", 0)
        before = data["iters_per_epoch"]
        if before != now and self._context.is_main:
            self._warn_of_other_epochs(state, position / before)
        return position * now // before

    def _warn_of_other_epochs(self, state: dict[str, Any], epochs: float) -> None:
        _log.warning(
            "the checkpoint was written with %d steps per epoch, now there are %d (SOLVER."
            "IMS_PER_BATCH was %d and is %d, SOLVER.ACCUMULATE_STEPS was %d and is %d; or the "
            "training set has another size): training continues after %.4g epochs",
            state["data"]["iters_per_epoch"],
            self._loader.iters_per_epoch,
            state["recipe"]["batch_size"],
            self._recipe.batch_size,
            state["recipe"].get("accumulate_steps", 1),
            self._recipe.accumulate_steps,
            epochs,
        )

    def _new_ema(self) -> ModelEMA:
        recipe = self._recipe
        return ModelEMA(self._experiment.model, recipe.ema_decay, recipe.ema_warmup)

    def _load_ema(self, state: dict[str, Any] | None) -> None:
        if not self._recipe.ema:
            return
        # A checkpoint without an average was written with MODEL_EMA.ENABLED False: the average
        # then starts from the weights that were just loaded.
        self.ema = self._new_ema()
        if state is not None:
            settings = {"decay": self._recipe.ema_decay, "warmup": self._recipe.ema_warmup}
            self.ema.load_state_dict({**state, **settings})

    def state(self) -> dict[str, Any]:
        """Returns the state of a checkpoint; the Checkpointer adds the iteration.

        Raises:
            NonFiniteLossError: The loss of a step is infinite or NaN.
        """
        self._trainer.read_losses()
        experiment = self._experiment
        best = {} if self.best is None else {"best": self.best.state()}
        added = {"hooks": hook_states(self._added_hooks)} if self._added_hooks else {}
        return {
            **best,
            **added,
            "model": unwrap(experiment.model).state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._trainer.scheduler.state_dict(),
            "scaler": self._trainer.scaler.state_dict(),
            "rng": capture_rng(),
            "data": {
                "seed": self._cfg.SEED,
                "iters_per_epoch": self._loader.iters_per_epoch,
                "offset": self._offset,
            },
            "recipe": self._recipe.to_dict(),
            "config": self._config,
            "arch": experiment.metadata["arch"],
            "classes": experiment.classes,
            "task": experiment.task.state(experiment.model),
            "metrics": recent_values(self._trainer.storage),
        }

    def run(self) -> None:
        """Runs the steps from ``start_iter`` to ``max_iter - 1``, or until an early stop.

        Evaluations and checkpoints are made in between, by hooks.

        Raises:
            StoppedError: A signal stopped the training; a checkpoint was written.
            FBNetError: A loss or weight is not finite, or a file cannot be written.
        """
        model = self._experiment.model.train()
        if self._distributed:
            model = parallel(model, self._context.device)
        if self._experiment.compiles:
            model = CompiledNetwork(model)
        self._trainer = Trainer(
            model=model,
            optimizer=self.optimizer,
            scheduler=self._scheduler(),
            batches=self._loader.batches(self.start_iter - self._offset),
            task=self._experiment.task,
            seed=self._cfg.SEED,
            rank=self._context.process.rank,
            clip_grad_norm=self._recipe.clip_grad_norm,
            amp_dtype=amp_dtype(self._recipe, self._context.device),
            device=self._context.device,
            accumulate_steps=self._recipe.accumulate_steps,
            read_period=self._read_period(),
        )
        if self._resumed is not None and self._resumed["scaler"]:
            self._trainer.scaler.load_state_dict(self._resumed["scaler"])
        self._trainer.register_hooks(self._hooks())
        try:
            self._trainer.train(self.start_iter, self.max_iter)
        except EarlyStop:
            assert self.best is not None
            self._stopped_at = self._trainer.iter + 1
            if self._context.is_main:
                text = "stopped early after %.4g epochs: %s has not improved since epoch %.4g"
                end = self._epochs_of(self._stopped_at)
                _log.warning(text, end, self.best.metric, self.best.epoch)

    def _read_period(self) -> int:
        """Returns the number of steps between reads of the losses; on a CPU each step is read."""
        if self._context.device.type != "cuda":
            return 1
        return min(self._cfg.SOLVER.LOG_PERIOD or READ_PERIOD, READ_PERIOD)

    def _scheduler(self) -> LRScheduler:
        per_epoch = self._loader.iters_per_epoch
        last = self.start_iter - 1
        scheduler = build_lr_scheduler(
            self.optimizer, self._recipe, per_epoch, last, offset=self._offset
        )
        if self._resumed is not None:
            # the current config's learning rates replace the checkpoint's
            present = {"base_lrs": scheduler.base_lrs, "_last_lr": scheduler.get_last_lr()}
            scheduler.load_state_dict({**self._resumed["scheduler"], **present})
        return scheduler

    def _hooks(self) -> list[detectron_hooks.HookBase]:
        cfg = self._cfg
        evaluating = self._every(cfg.TEST.EVAL_EPOCHS, cfg.TEST.EVAL_PERIOD)
        saving = self._every(cfg.SOLVER.CHECKPOINT_EPOCHS, cfg.SOLVER.CHECKPOINT_PERIOD)
        dues = [Every(cfg.SOLVER.LOG_PERIOD), evaluating, saving]
        device, hooks = self._context.device, list[detectron_hooks.HookBase]()
        hooks += [FrozenNormsHook(self._frozen_norms)] if self._frozen_norms else []
        if self._profile and self._context.is_main:
            hooks.append(ProfileHook(self._profile, self._experiment.folder, device))
        hooks += [
            ReadLossesHook(dues),
            detectron_hooks.IterationTimer(),
            SpeedHook(dues, self._recipe.step_batch, device),
            detectron_hooks.LRScheduler(),
        ]
        synced = cfg.MODEL.SYNC_BN and not unsynchronised_norms(self._experiment.model)
        if self._distributed and not synced:
            hooks.append(BroadcastBuffersHook())
        if self.ema is not None:
            hooks.append(EMAHook(self.ema))
        hooks.append(
            EvalHook(evaluating, self.ema, _log.info, self._report_epochs, self._raw_scores)
        )
        return hooks + self._added_hooks + self._saving_hooks(dues, evaluating, saving)

    def _saving_hooks(
        self, dues: list[Every], evaluating: Every, saving: Every
    ) -> list[detectron_hooks.HookBase]:
        """Returns the hooks that follow an evaluation; those of ranks other than 0 save nothing."""
        hooks, is_main = list[detectron_hooks.HookBase](), self._context.is_main
        checkpoints = CheckpointHook(self._checkpointer, saving, self.state)
        save = checkpoints.save if is_main else None
        if self.best is not None:
            save_best = self._save_best if is_main else None
            hooks.append(BestHook(self.best, evaluating, self._epochs_of, save_best))
        if is_main:
            hooks += [*self._main_hooks(dues, evaluating), checkpoints]
        agreement = StopAgreement(self._context.device) if self._distributed else None
        hooks.append(StopHook(save, self._checkpointer.path, agreement))
        if self.best is not None:
            hooks.append(EarlyStopHook(self.best, evaluating, saving, save))
        return hooks

    def _save_best(self) -> Path:
        state = self.state()
        check_weights(self._trainer)
        return self._checkpointer.save_best(state, self._trainer.iter + 1)

    def _main_hooks(self, dues: list[Every], evaluating: Every) -> list[detectron_hooks.HookBase]:
        """Returns the hooks of rank 0 that show progress and write files."""
        context, folder = self._context, self._experiment.folder
        hooks: list[detectron_hooks.HookBase] = []
        if context.shows_progress:
            hooks.append(ProgressHook(context.console))
        recent = {} if self._resumed is None else self._resumed.get("metrics", {})
        hooks.append(WriterHook(self._writers(), dues, folder, recent))
        if self._pictures:
            hooks.append(CurvesHook(evaluating, folder))
        return hooks

    def _report_epochs(self, iterations: float, scores: dict[str, float]) -> None:
        if self._on_eval is not None:
            self._on_eval(self._epochs_of(iterations), scores)

    def _every(self, epochs: float, iterations: int) -> Every:
        """Returns a condition with a period in epochs or, if that is 0, in iterations."""
        per_epoch = self._loader.iters_per_epoch
        period = max(1, round(epochs * per_epoch)) if epochs else iterations
        return Every(period, self._offset)

    def _writers(self) -> list[EventWriter]:
        folder, start = self._experiment.folder, self.start_iter
        drop_from(folder / "metrics.json", start)
        with disk_errors_as_write_errors(folder):
            writers: list[EventWriter] = [JSONWriter(str(folder / "metrics.json"))]
            writers += added_writers(
                self._cfg, self._additions, folder, start, pictures=self._pictures
            )
        if not self._context.shows_progress:
            per_epoch = self._loader.iters_per_epoch
            writers[:0] = [StepPrinter(self.max_iter, per_epoch, self._offset)]
        return writers


def _check_passes(recipe: Recipe, world_size: int) -> None:
    """Checks that the images of a pass can be shared equally by all processes."""
    if recipe.batch_size % world_size:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH={recipe.batch_size} images per pass cannot be shared equally by "
            f"{world_size} processes; use a multiple of {world_size}"
        )
