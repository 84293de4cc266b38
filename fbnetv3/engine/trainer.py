"""One step of a training, in the loop of detectron2's TrainerBase."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from detectron2.engine.train_loop import TrainerBase
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fbnetv3.data.seeding import mix_seed
from fbnetv3.errors import FBNetError

_STEP = 2  # keeps the draws of a step (dropout etc.) apart from those of the data


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
            iteration: Index of the step, from which random draws follow.
        """


class Task(HasLosses, Protocol):
    """The methods of a task that a training calls; classification and detection have them."""

    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns scores of a model by name, over all ranks; its training mode does not change.

        Args:
            model: Network without a parallel wrapper.
            weights: Kind of weights the model holds, ``raw`` or ``ema``.
        """

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns the plain values that a checkpoint keeps beside the model's tensors."""

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Restores the values that :meth:`state` returned."""


class Trainer(TrainerBase):
    """Runs steps: batch, losses, backward pass, gradient clipping, optimizer.

    Before each step torch's random generators are seeded from (seed, iteration, rank): the draws of
    a step do not depend on earlier steps, nor on a kill and a resumption in between.

    Args:
        model: Network in training mode, possibly wrapped in DistributedDataParallel.
        optimizer: Optimizer over its parameters.
        scheduler: Learning rate schedule, stepped by detectron2's LRScheduler hook.
        batches: Endless batches, the first one for the first iteration to run.
        task: Task that computes the losses; the hooks need the whole :class:`Task`.
        seed: Random seed of the steps' draws.
        rank: Rank of this process.
        clip_grad_norm: Largest norm of the gradients; 0 does not clip.
        amp: Whether to scale the loss for 16-bit gradients; only on CUDA.
        device: Device of the model.
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
        amp: bool = False,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.task = task
        self._batches, self._seed, self._rank = batches, seed, rank
        self._clip = clip_grad_norm
        self._device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp and device.type == "cuda")

    def run_step(self) -> None:
        """Runs one step; records its losses and the time it waited for data."""
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        self._seed_step()
        losses = self._losses(batch)
        total = torch.stack(list(losses.values())).sum()
        self._record(losses, total, data_time)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        if self._clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        try:
            return self.task.losses(self.model, batch, self.iter)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise SmallBatchError(
                f"batch norm needs more than one value per channel in training, but a map at "
                f"iteration {self.iter} has one pixel of one image; use 2 or more images per "
                "process (SOLVER.IMS_PER_BATCH), or larger images (INPUT)"
            ) from error

    def _seed_step(self) -> None:
        seed = mix_seed(_STEP, self._seed, self.iter, self._rank)
        # torch.manual_seed would also queue a call for every unused CUDA device
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _record(self, losses: dict[str, Tensor], total: Tensor, data_time: float) -> None:
        value = total.item()
        if not torch.isfinite(total):
            raise NonFiniteLossError(self._non_finite_text(losses))
        for name, loss in losses.items():
            self.storage.put_scalar(name, value if len(losses) == 1 else loss.item())
        if len(losses) > 1:
            self.storage.put_scalar("total_loss", value)
        self.storage.put_scalar("data_time", data_time)

    def _non_finite_text(self, losses: dict[str, Tensor]) -> str:
        named = ", ".join(f"{name} = {loss.item():g}" for name, loss in losses.items())
        lr = self.optimizer.param_groups[0]["lr"]
        return (
            f"{named} at iteration {self.iter} (lr {lr:.4g}, batch {self.iter} of seed "
            f"{self._seed}, rank {self._rank}); earlier checkpoints are kept: lower "
            "SOLVER.BASE_LR, raise SOLVER.WARMUP_EPOCHS or set SOLVER.CLIP_GRADIENTS.ENABLED True, "
            "and continue with --resume"
        )
