"""The training loop: detectron2's TrainerBase with a step of our own."""

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

_STEP = 2  # tells the draws of a step (dropout, ...) from those of the data under the same seed


class NonFiniteLossError(FBNetError):
    """The loss became infinite or no number."""


class HasLosses(Protocol):
    """What a step asks of a task."""

    def losses(self, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
        """Returns named losses of a batch; their sum is minimised."""


class Task(HasLosses, Protocol):
    """What a whole training asks of a task; classification and detection have one each."""

    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns named scores, over all ranks, and leaves the model in the mode it had.

        ``weights`` tells which the model holds at the moment, ``raw`` or ``ema``.
        """

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns what a checkpoint must keep beside tensors, as plain values."""

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Puts back what :meth:`state` gave."""


class Trainer(TrainerBase):
    """Runs steps: batch, losses, backward, clipping, optimizer.

    Before each step torch's generators are seeded from (seed, iteration, rank), so that what a
    step draws depends neither on what came before nor on a kill in between.

    Args:
        model: in training mode, maybe wrapped in DistributedDataParallel.
        optimizer: over its parameters.
        scheduler: stepped by detectron2's LRScheduler hook.
        batches: endless, from the first iteration on.
        task: see HasLosses; hooks ask for more, see Task.
        seed: of the steps' draws.
        rank: of this process.
        clip_grad_norm: largest gradient norm; 0 is off.
        amp: scale the loss for 16-bit gradients (CUDA).
        device: where the model is.
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
        """Runs one iteration and records its losses and the time it waited for data."""
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        self._seed_step()
        losses = self.task.losses(self.model, batch, self.iter)
        total = torch.stack(list(losses.values())).sum()
        self._record(losses, total, data_time)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        if self._clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _seed_step(self) -> None:
        seed = mix_seed(_STEP, self._seed, self.iter, self._rank)
        # torch.manual_seed would queue a call for every CUDA device that is not in use
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _record(self, losses: dict[str, Tensor], total: Tensor, data_time: float) -> None:
        value = total.item()
        if not torch.isfinite(total):
            raise NonFiniteLossError(self._complaint(losses))
        for name, loss in losses.items():
            self.storage.put_scalar(name, value if len(losses) == 1 else loss.item())
        if len(losses) > 1:
            self.storage.put_scalar("total_loss", value)
        self.storage.put_scalar("data_time", data_time)

    def _complaint(self, losses: dict[str, Tensor]) -> str:
        named = ", ".join(f"{name} = {loss.item():g}" for name, loss in losses.items())
        lr = self.optimizer.param_groups[0]["lr"]
        return (
            f"{named} at iteration {self.iter} (lr {lr:.4g}, batch {self.iter} of seed "
            f"{self._seed}, rank {self._rank}); the checkpoints written before are kept: lower "
            "SOLVER.BASE_LR, lengthen SOLVER.WARMUP_EPOCHS or clip with "
            "SOLVER.CLIP_GRADIENTS.ENABLED True, and go on with --resume"
        )
