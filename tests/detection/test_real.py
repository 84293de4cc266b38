"""Every image and annotation of the real data sets below FBNETV3_DATA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetMapper

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.detection.datasets import open_datasets
from fbnetv3.detection.evaluation import evaluate_boxes
from fbnetv3.detection.images import BatchMapper
from fbnetv3.resources import find_config

Opened = Callable[[str], CfgNode]


@pytest.fixture
def config(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    def make(name: str) -> CfgNode:
        if not (data_root / name).exists():
            pytest.skip(f"{data_root / name} is missing")
        monkeypatch.setenv("FBNETV3_DATA", str(data_root))
        cfg = get_cfg()
        cfg.merge_from_file(str(find_config(f"detection/retinanet_fbnetv3_a0_{name}.yaml")))
        return cfg

    return make


COUNTS = {
    # Numbers of images, boxes and crowd boxes of training and evaluation.
    "bccd": ((205, 2804, 0), (87, 1137, 0)),
    "coco_subset": ((338, 2962, 29), (206, 1786, 21)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_box_reaches_the_network(config: Opened, name: str) -> None:
    cfg = config(name)
    for dataset, counts, training in zip(
        open_datasets(cfg), COUNTS[name], (True, False), strict=True
    ):
        boxes = [item for record in dataset.records for item in record["annotations"]]
        assert (len(dataset), len(boxes), sum(item["iscrowd"] for item in boxes)) == counts
        mapped = BatchMapper(dataset, DatasetMapper(cfg, is_train=training))
        inputs = mapped([(index, index) for index in range(len(dataset))])
        assert len(inputs) == counts[0]
        if training:  # crowd boxes are not trained on
            assert sum(len(item["instances"]) for item in inputs) == counts[1] - counts[2]


@pytest.mark.parametrize("backend", ["faster", "pycocotools"])
def test_the_ground_truth_has_an_ap_of_100(config: Opened, backend: str) -> None:
    _, dataset = open_datasets(config("coco_subset"))
    truth = dataset.ground_truth()
    results = [
        {key: item[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        for item in truth["annotations"]
        if not item["iscrowd"]
    ]
    most = max(Counter(item["image_id"] for item in results).values())
    assert most <= 100  # the largest number per image that evaluators take into account
    scores = evaluate_boxes(truth, results, backend)
    assert scores.overall["AP"] == pytest.approx(100)
    assert len(scores.per_class) == 80
