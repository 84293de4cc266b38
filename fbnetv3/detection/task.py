"""What the loop needs to know of detection: the losses of a batch, the scores of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import track
from torch import Tensor, nn

from fbnetv3.data import EvalLoader
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.evaluation import BoxScores, evaluate_boxes
from fbnetv3.detection.pictures import contact_sheet
from fbnetv3.detection.tables import write_class_table
from fbnetv3.engine.ema import unwrap
from fbnetv3.requires import require

Batch = list[dict[str, Any]]
# RetinaNet divides its losses by a running count of positive anchors, which is no buffer; each rank
# has its own
_RUNNING = "loss_normalizer"


class DetectionTask:
    """The losses of a detector of detectron2, and COCO's average precisions of its boxes.

    Each evaluation writes ``predictions_raw.png`` (or ``_ema``), the first images with their
    boxes beside those predicted, and ``ap_per_class.txt``.

    Args:
        dataset: that is evaluated.
        eval_loader: its images on this rank.
        device: where the network is.
        folder: of the run; None writes no pictures.
        amp: autocast to 16 bits on CUDA.
        progress: whether evaluation shows a bar.
        backend: the evaluator, see :func:`evaluate_boxes`.
    """

    def __init__(
        self,
        *,
        dataset: CocoDataset,
        eval_loader: EvalLoader,
        device: torch.device,
        folder: Path | None = None,
        amp: bool = False,
        progress: bool = False,
        backend: str = "faster",
    ) -> None:
        if backend == "faster":
            require("faster_coco_eval", "detection")
        self._dataset, self._loader, self._device = dataset, eval_loader, device
        self._folder, self._progress, self._backend = folder, progress, backend
        self._amp = amp and device.type == "cuda"
        self._per_class: dict[str, dict[str, tuple[float, float]]] = {}
        self._running: list[float] = []

    def losses(self, model: nn.Module, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Returns the losses of a batch, whose sum is to be minimised. All ranks call it."""
        with torch.autocast(self._device.type, enabled=self._amp):
            found: dict[str, Tensor] = model(batch)
        value = getattr(unwrap(model), _RUNNING, None)
        if value is not None:
            self._running = _of_all_ranks(float(value), self._device)
        return found

    def state(self, model: nn.Module) -> dict[str, Any]:
        """Returns RetinaNet's running count of positive anchors of every rank."""
        return {_RUNNING: self._running} if self._running else {}

    def load_state(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Puts this rank's count back; their mean, where the number of ranks is another."""
        saved: list[float] = state.get(_RUNNING, [])
        if not saved:
            return
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        value = saved[rank] if len(saved) == size else sum(saved) / len(saved)
        setattr(model, _RUNNING, value)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, weights: str = "raw") -> dict[str, float]:
        """Returns ``bbox/AP``, ``bbox/AP50`` and so on in percent, over all ranks.

        The model is put into evaluation mode meanwhile.
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
        """Returns COCO results of this rank's images."""
        found: list[dict[str, Any]] = []
        for batch in track(
            self._loader,
            total=len(self._loader),
            description="evaluating",
            transient=True,
            disable=not self._progress,
        ):
            with torch.autocast(self._device.type, enabled=self._amp):
                outputs = model(batch)
            for image, output in zip(batch, outputs, strict=True):
                found += coco_results(image["image_id"], output["instances"], self._dataset)
        return found

    def _score(self, results: list[dict[str, Any]], weights: str) -> dict[str, float]:
        scores = evaluate_boxes(self._dataset.ground_truth(), results, self._backend)
        if self._folder is not None:
            self._illustrate(results, scores, weights)
        return {f"bbox/{name}": value for name, value in scores.overall.items()}

    def _illustrate(self, results: list[dict[str, Any]], scores: BoxScores, weights: str) -> None:
        assert self._folder is not None
        self._per_class[weights] = scores.per_class
        write_class_table(self._folder / "ap_per_class.txt", self._per_class)
        contact_sheet(self._dataset, results, self._folder / f"predictions_{weights}.png")


def coco_results(image_id: int, instances: Any, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Turns the instances of an image into COCO results."""
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


def _of_all_ranks(value: float, device: torch.device) -> list[float]:
    if not dist.is_initialized():
        return [value]
    own = torch.tensor([value], dtype=torch.float64, device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return [float(part) for part in parts]


def _gather(results: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Returns the results of all ranks on rank 0, None on the others."""
    if not dist.is_initialized():
        return results
    parts: list[Any] = [None] * dist.get_world_size()
    # all: nccl has no gather of objects
    dist.all_gather_object(parts, results)
    return [item for part in parts for item in part] if dist.get_rank() == 0 else None
