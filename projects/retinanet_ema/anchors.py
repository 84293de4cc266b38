"""Prints how well the anchors of a config match the boxes of its training set.

    python -m projects.retinanet_ema.anchors --config-file detection/retinanet_fbnetv3_a0_bccd.yaml

Each box is compared with the anchors of the whole image at each training size. For each class, a
row has the side of the boxes (square root of the area) in pixels of the network's input, the IoU
with the best anchor, the number of positive anchors per box, and the share of boxes without any
(which are assigned their best anchor).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

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

_STRIDES = (8, 16, 32, 64, 128)
_QUANTILES = (0.05, 0.5, 0.95)


def anchors_of(cfg: CfgNode, height: int, width: int) -> Boxes:
    """Returns RetinaNet's anchors of P3 to P7 for an input of that size."""
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=s) for s in _STRIDES])
    maps = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in _STRIDES]
    return Boxes.cat(generator(maps))


def measure(cfg: CfgNode, dataset: CocoDataset) -> list[list[object]]:
    """Returns the rows of the table."""
    sides: dict[int, list[float]] = {k: [] for k in range(len(dataset.classes))}
    best: dict[int, list[float]] = {k: [] for k in sides}
    positive: dict[int, list[int]] = {k: [] for k in sides}
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
            areas = Boxes(boxes).area().sqrt()
            for item, area, top, count in zip(
                items, areas.tolist(), iou.amax(1).tolist(), counts.tolist(), strict=True
            ):
                sides[item["category_id"]].append(area)
                best[item["category_id"]].append(top)
                positive[item["category_id"]].append(count)
    return [
        [
            name,
            len(sides[k]),
            " ".join(f"{v:.0f}" for v in np.quantile(sides[k], _QUANTILES)),
            " ".join(f"{v:.2f}" for v in np.quantile(best[k], _QUANTILES)),
            f"{np.mean(positive[k]):.1f}",
            f"{100 * np.mean(np.array(positive[k]) == 0):.1f}%",
        ]
        for k, name in enumerate(dataset.classes)
        if sides[k]
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE")
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
