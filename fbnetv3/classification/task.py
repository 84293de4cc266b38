"""The task of image classification: the loss of a batch, the scores of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.classification import losses as _losses  # noqa: F401 - registers the built-in losses
from fbnetv3.classification.distillation import Distillation
from fbnetv3.data import EvalLoader
from fbnetv3.data.batch_augment import BatchAugment
from fbnetv3.data.device import BatchToDevice
from fbnetv3.registries import LOSSES

Batch = tuple[Tensor, Tensor]


class ClassificationTask:
    """A loss of soft targets (cross-entropy by default), and top-1 and top-5 accuracy as scores.

    ``MultiLabelTask`` is the task for images with several labels.

    Args:
        num_classes: Number of outputs of the network; with 5 or fewer there is no top-5 score.
        eval_loader: Evaluation batches of this rank.
        device: Device of the network.
        augment: Augmentation of training batches, and their soft targets; None only converts
            labels to targets.
        loss: Registered name of the loss, see ``LOSSES`` in registries.py; ``cross_entropy`` stands
            for ``default_loss``, which ``MultiLabelTask`` sets to ``binary_cross_entropy``.
        class_weights: Weight of each class in the loss, (num_classes,); None weights all equally.
            The sum over a batch is divided by its number of images, not by the sum of weights.
        distillation: Teacher, and its share of the loss; None: no teacher.
        amp_dtype: 16-bit type of autocast; None for float32.
        progress: Whether an evaluation shows a progress bar.
        normalize: Function that converts a batch of uint8 pixels (N, 3, H, W) on the device to the
            network's input; None if the loaders yield normalised images.
    """

    several_labels = False
    default_loss = "cross_entropy"

    def __init__(
        self,
        *,
        num_classes: int,
        eval_loader: EvalLoader,
        device: torch.device,
        augment: BatchAugment | None = None,
        loss: str = "cross_entropy",
        class_weights: Tensor | None = None,
        distillation: Distillation | None = None,
        amp_dtype: torch.dtype | None = None,
        progress: bool = False,
        normalize: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._loss = LOSSES.get(self.default_loss if loss == "cross_entropy" else loss)
        self._augment = augment or BatchAugment(num_classes)
        self._class_weights = None if class_weights is None else class_weights.to(device)
        self._distillation = distillation
        self._loader, self._device = eval_loader, device
        self._amp_dtype = amp_dtype
        self._progress = progress
        self._copy, self._normalize = BatchToDevice(device), normalize
        self._top_k = (1, 5) if num_classes > 5 else (1,)

    def _autocast(self) -> torch.autocast:
        enabled = self._amp_dtype is not None
        return torch.autocast(self._device.type, dtype=self._amp_dtype, enabled=enabled)

    def losses(self, model: nn.Module, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Returns the loss of a batch; with a teacher, see :meth:`Distillation.losses`."""
        images, labels = self._on_device(batch)
        images, targets = self._augment(images, labels, iteration)
        with self._autocast():
            logits = model(images)
            loss = self.criterion(logits, targets)
            if self._distillation is None:
                return {"loss": loss}
            return self._distillation.losses(loss, logits, images, self.several_labels)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the loss of the labels for logits and soft targets, both (N, classes)."""
        if self._class_weights is None:
            return torch.as_tensor(self._loss(logits, targets))
        return torch.as_tensor(self._loss(logits, targets, self._class_weights))

    def _on_device(self, batch: Batch) -> list[Tensor]:
        """Returns the network's input (N, 3, H, W) and the batch's labels, both on the device."""
        images, labels = self._copy(batch)
        return [images if self._normalize is None else self._normalize(images), labels]

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores of :meth:`evaluate`."""
        return (*(f"val/top{k}" for k in self._top_k), "val/loss")

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns an empty state: the task keeps nothing in addition to the model's tensors."""
        return {}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Does nothing, as the state is empty."""

    @torch.no_grad()
    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns the scores in :attr:`score_names` over all ranks; accuracies are in percent.

        ``val/loss`` is the mean cross-entropy, without weights of classes, whatever the ``loss``.

        Args:
            model: Network. It is put into evaluation mode for the call, and back into its
                previous mode afterwards.
            weights: Kind of weights the model holds, ``raw`` or ``ema``; not used here.
        """
        was_training = model.training
        model.eval()
        try:
            # float64, in which sums over a million images are still exact enough
            sums = torch.zeros(len(self._top_k) + 2, dtype=torch.float64)
            for batch in self._batches():
                sums += self._score(model, *self._on_device(batch))
        finally:
            model.train(was_training)
        if dist.is_initialized():
            sums = sums.to(self._device)
            dist.all_reduce(sums)
        total, loss, *hits = (float(x) for x in sums)
        scores = {f"val/top{k}": 100 * h / total for k, h in zip(self._top_k, hits, strict=True)}
        return {**scores, "val/loss": loss / total}

    def _batches(self) -> Iterator[Batch]:
        yield from track(
            self._loader,
            total=len(self._loader),
            description="evaluating",
            transient=True,
            disable=not self._progress,
        )

    def _score(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Returns a vector: number of images, summed loss, number of hits for each k."""
        with self._autocast():
            logits = model(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        ranked = logits.topk(max(self._top_k), dim=1).indices  # (N, k)
        correct = ranked == labels[:, None]
        hits = [correct[:, :k].any(1).sum() for k in self._top_k]
        counts = [torch.tensor(len(labels)), loss, *hits]
        return torch.stack([x.detach().cpu().double() for x in counts])
