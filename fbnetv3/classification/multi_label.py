"""Classification of images with several labels, scored by mean average precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.classification.task import ClassificationTask


class MultiLabelTask(ClassificationTask):
    """Binary cross-entropy of each class as the loss, and mean average precision as the score.

    The arguments are those of :class:`ClassificationTask`. The labels of a batch are (N, classes)
    with 1 for each class of an image, else 0.
    """

    several_labels = True
    default_loss = "binary_cross_entropy"

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores of :meth:`evaluate`."""
        return ("val/mAP", "val/loss")

    @torch.no_grad()
    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns the mean average precision in percent, and the loss, over all ranks.

        ``val/loss`` is the mean binary cross-entropy, without weights of classes, also if the
        training has another ``loss``.

        Args:
            model: Network. It is put into evaluation mode for the call, and back into its
                previous mode afterwards.
            weights: Kind of weights the model holds, ``raw`` or ``ema``; not used here.
        """
        was_training = model.training
        model.eval()
        scores, labels = list[Tensor](), list[Tensor]()
        try:
            for batch in self._batches():
                images, truth = self._on_device(batch)
                with self._autocast():
                    logits = model(images)
                scores.append(logits.float().cpu())
                labels.append(truth.cpu())
        finally:
            model.train(was_training)
        logits, truth = _of_all_ranks(scores, labels)
        loss = F.binary_cross_entropy_with_logits(logits.double(), truth.double())
        precision = mean_average_precision(truth.numpy(), logits.numpy())
        return {"val/mAP": 100 * precision, "val/loss": float(loss)}


def mean_average_precision(
    truth: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]
) -> float:
    """Returns scikit-learn's average precision, averaged over the classes that occur in ``truth``.

    Args:
        truth: (images, classes) 1 for each class of an image, else 0.
        scores: (images, classes) scores; higher is more probable.

    Returns:
        A number in [0, 1]; 0 if no image has a class.
    """
    # Imported late: it imports pandas, which takes a second.
    from sklearn.metrics import average_precision_score

    values = [
        average_precision_score(truth[:, c], scores[:, c])
        for c in range(truth.shape[1])
        if truth[:, c].any()
    ]
    return float(np.mean(values)) if values else 0.0


def _of_all_ranks(scores: list[Tensor], labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the joined batches of all ranks, some of which may have no batch."""
    parts = [(scores, labels)]
    if dist.is_initialized():
        parts *= dist.get_world_size()
        dist.all_gather_object(parts, (scores, labels))
    logits = torch.cat([batch for part in parts for batch in part[0]])
    return logits, torch.cat([batch for part in parts for batch in part[1]])
