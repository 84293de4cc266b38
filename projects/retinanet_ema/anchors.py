"""Compares the anchors of a config with the boxes of its training set.

    python -m projects.retinanet_ema.anchors --config-file detection/retinanet_fbnetv3_a0_bccd.yaml

Each box is compared with all anchors of its image at each training size. The printed table has one
row per class: the number of boxes, quantiles of their side (square root of the area) in pixels of
the network's input and of their IoU with the best anchor, the mean number of positive anchors per
box, and the fraction of boxes without positive anchors (RetinaNet assigns these their best anchor).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import build_anchor_generator
from detectron2.structures import Boxes, pairwise_iou
from tabulate import tabulate

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.datasets import build_detection_dataset
from fbnetv3.resources import find_config

_STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7
_QUANTILES = (0.05, 0.5, 0.95)


def anchors_of(cfg: CfgNode, height: int, width: int) -> Boxes:
    """Returns RetinaNet's anchors on P3 to P7 for an input of that size in pixels."""
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=s) for s in _STRIDES])
    maps = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in _STRIDES]
    return Boxes.cat(generator(maps))


class BoxMatch(NamedTuple):
    """A box compared with the anchors of its image.

    Attributes:
        category: Index of the class.
        side: Square root of the area in pixels of the network's input.
        best_iou: IoU with the best anchor.
        num_positive: Number of positive anchors.
    """

    category: int
    side: float
    best_iou: float
    num_positive: int


def match_boxes(cfg: CfgNode, dataset: CocoDataset) -> Iterator[BoxMatch]:
    """Yields a match for each box, except crowds, at each training size."""
    for side in cfg.INPUT.MIN_SIZE_TRAIN:
        anchors: dict[tuple[int, int], Boxes] = {}
        for record in dataset.records:
            scale = side / min(record["height"], record["width"])
            size = (round(record["height"] * scale), round(record["width"] * scale))
            if size not in anchors:
                anchors[size] = anchors_of(cfg, *size)
            items = [item for item in record["annotations"] if not item["iscrowd"]]
            if not items:
                continue
            boxes = torch.tensor([item["bbox"] for item in items]) * scale
            boxes[:, 2:] += boxes[:, :2]
            iou = pairwise_iou(Boxes(boxes), anchors[size])
            counts = (iou >= cfg.MODEL.RETINANET.IOU_THRESHOLDS[1]).sum(1)
            sides = Boxes(boxes).area().sqrt()
            columns = (sides.tolist(), iou.amax(1).tolist(), counts.tolist())
            for item, *values in zip(items, *columns, strict=True):
                yield BoxMatch(item["category_id"], *values)


def measure(cfg: CfgNode, dataset: CocoDataset) -> list[list[object]]:
    """Returns the rows of the table."""
    by_class: dict[int, list[BoxMatch]] = {k: [] for k in range(len(dataset.classes))}
    for match in match_boxes(cfg, dataset):
        by_class[match.category].append(match)
    rows: list[list[object]] = []
    for k, matches in by_class.items():
        if not matches:
            continue
        _, sides, ious, counts = (np.array(column) for column in zip(*matches, strict=True))
        rows.append(
            [
                dataset.classes[k],
                len(matches),
                " ".join(f"{value:.0f}" for value in np.quantile(sides, _QUANTILES)),
                " ".join(f"{value:.2f}" for value in np.quantile(ious, _QUANTILES)),
                f"{counts.mean():.1f}",
                f"{100 * np.mean(counts == 0):.1f}%",
            ]
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True, help="config of a RetinaNet")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")
    args = parser.parse_intermixed_args(argv)
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config(args.config_file)))
    cfg.merge_from_list(args.opts)
    rows = measure(cfg, build_detection_dataset(cfg.DATASETS.TRAIN[0], cfg))
    quantiles = "/".join(f"{100 * q:.0f}" for q in _QUANTILES)
    print(
        tabulate(
            rows,
            ["class", "boxes", f"side {quantiles}%", f"IoU {quantiles}%", "positive", "none"],
            disable_numparse=True,
        )
    )


if __name__ == "__main__":
    main()
