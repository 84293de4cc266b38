"""What the loop needs to know of classification: the loss of a batch, the score of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.data import EvalLoader, Mixup
from fbnetv3.data.seeding import keyed_generator

Batch = tuple[Tensor, Tensor]
_MIXUP = 3  # tells mixup's draws from those of order and augmentation under the same seed


class ClassificationTask:
    """Cross-entropy with soft targets; top-1 and top-5.

    Args:
        num_classes: of the network.
        eval_loader: validation batches of this rank.
        device: where the network is.
        mixup: alpha; 0 is off.
        label_smoothing: in [0, 1).
        seed: mixup's draws follow from (seed, iteration), and are the same on every rank.
        amp: autocast to 16 bits on CUDA.
        progress: whether evaluation shows a bar.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        eval_loader: EvalLoader,
        device: torch.device,
        mixup: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        amp: bool = False,
        progress: bool = False,
    ) -> None:
        self._mixup = Mixup(mixup, num_classes, label_smoothing)
        self._loader, self._device, self._seed = eval_loader, device, seed
        self._amp = amp and device.type == "cuda"
        self._progress = progress
        self._top_k = (1, 5) if num_classes > 5 else (1,)

    def losses(self, model: nn.Module, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Returns the losses of a batch, whose sum is to be minimised."""
        images, labels = (x.to(self._device, non_blocking=True) for x in batch)
        generator = keyed_generator(_MIXUP, self._seed, iteration)
        images, targets = self._mixup(images, labels, generator)
        with torch.autocast(self._device.type, enabled=self._amp):
            return {"loss": F.cross_entropy(model(images), targets)}

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns nothing: the tensors are all there is."""
        return {}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Does nothing."""

    @torch.no_grad()
    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns ``val/top1`` and ``val/top5`` in percent and ``val/loss``, over all ranks.

        The model is put into evaluation mode meanwhile.
        """
        was_training = model.training
        model.eval()
        try:
            # float64: counts and sums over a million images stay exact enough
            sums = torch.zeros(len(self._top_k) + 2, dtype=torch.float64)
            for images, labels in self._batches():
                sums += self._score(model, images.to(self._device), labels.to(self._device))
        finally:
            model.train(was_training)
        if dist.is_initialized():
            sums = sums.to(self._device)
            dist.all_reduce(sums)
        total, loss, *hits = (float(x) for x in sums)
        found = {f"val/top{k}": 100 * h / total for k, h in zip(self._top_k, hits, strict=True)}
        return {**found, "val/loss": loss / total}

    def _batches(self) -> Iterator[Batch]:
        yield from track(
            self._loader,
            total=len(self._loader),
            description="evaluating",
            transient=True,
            disable=not self._progress,
        )

    def _score(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Returns (images, summed loss, hits for each k)."""
        with torch.autocast(self._device.type, enabled=self._amp):
            logits = model(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        ranked = logits.topk(max(self._top_k), dim=1).indices  # N, k
        right = ranked == labels[:, None]
        hits = [right[:, :k].any(1).sum() for k in self._top_k]
        counts = [torch.tensor(len(labels)), loss, *hits]
        return torch.stack([x.detach().cpu().double() for x in counts])
