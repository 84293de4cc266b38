"""The task of object detection: the losses of a batch, the scores of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from rich.progress import track
from torch import Tensor, nn

from fbnetv3.data import EvalLoader
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.evaluation import SCORES, BoxScores, evaluate_boxes
from fbnetv3.detection.tables import write_class_table
from fbnetv3.detection.visualization import write_contact_sheet
from fbnetv3.engine.ema import unwrap
from fbnetv3.requires import require

if TYPE_CHECKING:
    from detectron2.structures import Instances

Batch = list[dict[str, Any]]
"""Inputs of a detector of detectron2, one dict per image."""
# RetinaNet divides its losses by a moving average of the number of positive anchors. This
# average is a plain attribute: it is not in the state dict, and differs from rank to rank.
_NORMALIZER = "loss_normalizer"


class DetectionTask:
    """Losses of a detector of detectron2, and COCO's average precision (AP) of its boxes.

    With a ``folder``, each evaluation writes two files there: ``ap_per_class.txt``, and
    ``predictions_raw.png`` or ``predictions_ema.png``, which shows the first images with their true
    boxes next to the predicted ones.

    Args:
        dataset: Evaluation set.
        eval_loader: Loader of this rank's share of the images of ``dataset``.
        device: Device of the network.
        folder: Folder of the run; None writes no files.
        amp_dtype: 16-bit type of autocast; None for float32.
        progress: Whether an evaluation shows a progress bar.
        backend: COCO evaluator, ``faster`` (faster-coco-eval) or ``pycocotools``; their scores are
            equal.

    Raises:
        MissingPackageError: faster-coco-eval is not installed, but ``backend`` is ``faster``.
        BrokenPackageError: Importing faster-coco-eval fails.
    """

    def __init__(
        self,
        *,
        dataset: CocoDataset,
        eval_loader: EvalLoader,
        device: torch.device,
        folder: Path | None = None,
        amp_dtype: torch.dtype | None = None,
        progress: bool = False,
        backend: str = "faster",
    ) -> None:
        if backend == "faster":
            require("faster_coco_eval", "detection")
        self._dataset, self._loader, self._device = dataset, eval_loader, device
        self._folder, self._progress, self._backend = folder, progress, backend
        self._amp_dtype = amp_dtype
        self._per_class: dict[str, dict[str, tuple[float, float]]] = {}
        self._normalizers: list[float] = []  # moving averages, one per rank

    def _autocast(self) -> torch.autocast:
        enabled = self._amp_dtype is not None
        return torch.autocast(self._device.type, dtype=self._amp_dtype, enabled=enabled)

    def losses(self, model: nn.Module, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Returns the losses of a batch by name. All ranks must call it, as ranks exchange data."""
        with self._autocast():
            losses: dict[str, Tensor] = model(batch)
        value = getattr(unwrap(model), _NORMALIZER, None)
        if value is not None:
            self._normalizers = _all_gather(float(value), self._device)
        return losses

    @property
    def score_names(self) -> tuple[str, ...]:
        """Names of the scores of :meth:`evaluate`, which leaves out scores without a true box.

        ``bbox/APs`` is left out for a data set without small objects, for example.
        """
        return tuple(f"bbox/{name}" for name in SCORES)

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns RetinaNet's moving averages of the number of positive anchors, one per rank.

        The result is empty for other detectors, and before the first step.
        """
        return {_NORMALIZER: self._normalizers} if self._normalizers else {}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Restores this rank's moving average, or the mean of all if the rank count differs."""
        saved: list[float] = state.get(_NORMALIZER, [])
        if not saved:
            return
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        value = saved[rank] if len(saved) == size else sum(saved) / len(saved)
        setattr(model, _NORMALIZER, value)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns ``bbox/AP``, ``bbox/AP50`` etc. in percent, over all ranks.

        Args:
            model: Detector. It is put into evaluation mode for the call, and back into its
                previous mode afterwards.
            weights: Kind of weights the model holds, ``raw`` or ``ema``; part of file names.
        """
        was_training = model.training
        model.eval()
        try:
            results = self._detect(model)
        finally:
            model.train(was_training)
        scores: list[dict[str, float]] = [{}]
        gathered = _gather(results)
        if gathered is not None:
            scores = [self._score(gathered, weights)]
        if dist.is_initialized():
            dist.broadcast_object_list(scores, src=0)
        return scores[0]

    def _detect(self, model: nn.Module) -> list[dict[str, Any]]:
        """Detects objects in this rank's images; returns them in COCO's format of results."""
        results: list[dict[str, Any]] = []
        for batch in track(
            self._loader,
            total=len(self._loader),
            description="evaluating",
            transient=True,
            disable=not self._progress,
        ):
            with self._autocast():
                outputs = model(batch)
            for image, output in zip(batch, outputs, strict=True):
                results += coco_results(image["image_id"], output["instances"], self._dataset)
        return results

    def _score(self, results: list[dict[str, Any]], weights: str) -> dict[str, float]:
        scores = evaluate_boxes(self._dataset.ground_truth(), results, self._backend)
        if self._folder is not None:
            self._write_files(results, scores, weights)
        return {f"bbox/{name}": value for name, value in scores.overall.items()}

    def _write_files(self, results: list[dict[str, Any]], scores: BoxScores, weights: str) -> None:
        assert self._folder is not None
        self._per_class[weights] = scores.per_class
        write_class_table(self._folder / "ap_per_class.txt", self._per_class)
        write_contact_sheet(self._dataset, results, self._folder / f"predictions_{weights}.png")


def coco_results(image_id: int, instances: Instances, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Converts the detected instances of an image to COCO's format of results."""
    boxes = instances.pred_boxes.tensor.float().cpu()
    boxes[:, 2:] -= boxes[:, :2]  # x, y, width, height
    columns = (boxes.tolist(), instances.scores.tolist(), instances.pred_classes.tolist())
    return [
        {
            "image_id": image_id,
            "category_id": dataset.category_ids[label],
            "bbox": box,
            "score": score,
        }
        for box, score, label in zip(*columns, strict=True)
    ]


def _all_gather(value: float, device: torch.device) -> list[float]:
    if not dist.is_initialized():
        return [value]
    local = torch.tensor([value], dtype=torch.float64, device=device)
    parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, local)
    return [float(part) for part in parts]


def _gather(results: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Returns the results of all ranks on rank 0, None on the others."""
    if not dist.is_initialized():
        return results
    parts: list[Any] = [None] * dist.get_world_size()
    # Gathered on all ranks, since NCCL cannot gather objects on a single one.
    dist.all_gather_object(parts, results)
    return [item for part in parts for item in part] if dist.get_rank() == 0 else None
