"""One step of a training, in the loop of detectron2's TrainerBase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fbnetv3.data.seeding import mix_seed
from fbnetv3.engine.compiling import backward_error
from fbnetv3.engine.detectron2_loop import TrainerBase
from fbnetv3.engine.distributed import gradients_of_this_rank
from fbnetv3.engine.losses import LossBuffer, StepLosses
from fbnetv3.engine.optim import OptimError
from fbnetv3.errors import FBNetError

_STEP = 2  # first key of mix_seed; data/loaders.py uses another one, so that the draws differ


class NonFiniteLossError(FBNetError):
    """The loss became infinite or NaN."""


class SmallBatchError(FBNetError):
    """A batch is too small for the statistics of batch norms."""


class HasLosses(Protocol):
    """The part of a task that a training step calls."""

    def losses(self, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        """Returns the losses of a batch by name; their sum is minimised.

        Args:
            model: Network in training mode, possibly wrapped in DistributedDataParallel.
            batch: Batch of the training loader.
            iteration: Number that seeds random draws: the index of the step or, if gradients are
                accumulated, of the part of a step, counted from the start of the training.
        """


class Task(HasLosses, Protocol):
    """The methods of a task that a training calls; classification and detection have them."""

    @property
    def score_names(self) -> Sequence[str]:
        """Names of the scores of :meth:`evaluate`.

        An evaluation may lack some of them, such as the AP of small boxes if the data has none.
        """

    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns scores of a model by name, over all ranks; its training mode is kept.

        Args:
            model: Network without a parallel wrapper.
            weights: Weights that the model holds: ``raw`` as the optimizer leaves them, or ``ema``,
                their exponential moving averages.
        """

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns the plain values that a checkpoint keeps in addition to the model's tensors."""

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Restores the values that :meth:`state` returned."""


class Trainer(TrainerBase):
    """Runs steps: batch, losses, backward passes, gradient clipping, optimizer.

    Before each step torch's random generators are seeded from (seed, iteration, rank): the draws of
    a step do not depend on earlier steps, nor on a kill and a resumption in between.

    The losses of steps stay on the GPU until :meth:`read_losses`, which is called every
    ``read_period`` steps and by hooks that need the losses. Except for this call and the loss
    scaling of float16, the trainer does not wait for the GPU.

    Args:
        model: Network in training mode, possibly compiled or wrapped in DistributedDataParallel.
        optimizer: Optimizer over the network's parameters.
        scheduler: Learning rate schedule, stepped by detectron2's LRScheduler hook.
        batches: Endless batches, the first one for the first iteration to run.
        task: Task that computes the losses; the hooks need the whole :class:`Task`.
        seed: Random seed of the steps' draws.
        rank: Rank of this process.
        clip_grad_norm: Largest norm of the gradients; 0 does not clip.
        amp_dtype: 16-bit type of the task's autocast, None for float32; for float16 on CUDA, the
            loss is scaled.
        device: Device of the model.
        accumulate_steps: Number of equal parts into which a batch is split. Their gradients are
            averaged.
        read_period: Number of steps after which the losses are read; 1 reads them in each step,
            before the optimizer changes the weights.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        batches: Iterator[Any],
        task: HasLosses,
        seed: int,
        rank: int = 0,
        clip_grad_norm: float = 0.0,
        amp_dtype: torch.dtype | None = None,
        device: torch.device,
        accumulate_steps: int = 1,
        read_period: int = 1,
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.task = task
        self._batches, self._seed, self._rank = batches, seed, rank
        self._clip = clip_grad_norm
        self._device = device
        self._parts = accumulate_steps
        self._buffer = LossBuffer(read_period)
        scales = amp_dtype is torch.float16 and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scales)

    def run_step(self) -> None:
        """Runs one step; records its losses and the time it waited for data.

        Raises:
            NonFiniteLossError: The losses were read, and the loss of a step is infinite or NaN.
            SmallBatchError: A batch is too small for the statistics of batch norms.
            OptimError: The optimizer needs a key that it has not set.
            CompileError: torch.compile fails in a backward pass.
        """
        start = time.perf_counter()
        batch = next(self._batches)
        self.storage.put_scalar("data_time", time.perf_counter() - start)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._gradients(split_batch(batch, self._parts))
        lr = self.optimizer.param_groups[0]["lr"]
        self._buffer.add(self.iter, lr, losses, torch.stack(list(losses.values())).sum())
        if self._buffer.is_full:
            self.read_losses()
        if self._clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._step_optimizer()
        self.scaler.update()

    def _step_optimizer(self) -> None:
        """Updates the weights.

        Raises:
            OptimError: The optimizer, which may be a user's, needs a key that it has not set.
        """
        try:
            self.scaler.step(self.optimizer)
        except KeyError as error:
            raise OptimError(
                f"the step of {type(self.optimizer).__name__} needs the key {error}, which its "
                "groups or states lack; set it where the optimizer is made"
            ) from error

    def read_losses(self) -> None:
        """Waits for the device, and records the losses of the steps since the last call.

        Raises:
            NonFiniteLossError: The loss of a step is infinite or NaN; the error names the first
                such step.
        """
        for step in self._buffer.read():
            if not step.is_finite:
                raise NonFiniteLossError(self._non_finite_text(step))
            self.storage.iter = step.iteration
            for name, value in step.values.items():
                self.storage.put_scalar(name, value)
        self.storage.iter = self.iter

    def _gradients(self, parts: list[Any]) -> dict[str, Tensor]:
        """Adds the gradients of the parts of a batch; returns the means of their losses."""
        self._seed_step()
        means: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            # Gradients are averaged over processes once, in the backward pass of the last part.
            with gradients_of_this_rank(self.model, index < len(parts) - 1):
                losses = self._losses(part, self.iter * len(parts) + index)
                if len(parts) > 1:
                    losses = {name: loss / len(parts) for name, loss in losses.items()}
                self._backward(torch.stack(list(losses.values())).sum())
            for name, loss in losses.items():
                loss = loss.detach()
                means[name] = means[name] + loss if name in means else loss
        return means

    def _losses(self, batch: Any, number: int) -> dict[str, Tensor]:
        """Returns the losses of part ``number``, counted from the start of the training."""
        try:
            return self.task.losses(self.model, batch, number)
        except FloatingPointError:  # raised by detectron2; an unread loss may be NaN already
            self.read_losses()
            raise
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise SmallBatchError(
                f"batch norm needs more than one value per channel in training, but a feature map "
                f"at iteration {self.iter} has one pixel of one image; use 2 or more images per "
                "process (SOLVER.IMS_PER_BATCH), or larger images (INPUT)"
            ) from error

    def _backward(self, loss: Tensor) -> None:
        try:
            self.scaler.scale(loss).backward()
        except Exception as error:
            reason = backward_error(error)
            if reason is None:
                raise
            raise reason from error

    def _seed_step(self) -> None:
        seed = mix_seed(_STEP, self._seed, self.iter, self._rank)
        # torch.manual_seed would also queue a call for every unused CUDA device
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _non_finite_text(self, step: StepLosses) -> str:
        named = ", ".join(f"{name} = {loss:g}" for name, loss in step.values.items())
        return (
            f"{named} at iteration {step.iteration} (lr {step.lr:.4g}, batch {step.iteration} of "
            f"seed {self._seed}, rank {self._rank}); earlier checkpoints are kept: lower "
            "SOLVER.BASE_LR, raise SOLVER.WARMUP_EPOCHS or set SOLVER.CLIP_GRADIENTS.ENABLED True, "
            "and continue with --resume"
        )


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Splits a batch into equal parts along its images.

    Args:
        batch: Tensor, list of images, or tuple or mapping of these.
        parts: Number of parts, which divides the number of images.
    """
    if parts == 1:
        return [batch]
    if isinstance(batch, tuple):
        return list(zip(*(split_batch(item, parts) for item in batch), strict=True))
    if isinstance(batch, Mapping):
        columns = [split_batch(item, parts) for item in batch.values()]
        return [dict(zip(batch, row, strict=True)) for row in zip(*columns, strict=True)]
    size = len(batch) // parts
    return [batch[start : start + size] for start in range(0, parts * size, size)]
