"""A search on images with several labels each: its scores, its held-out images, what chance is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

pytest.importorskip("detectron2")

from PIL import Image

from fbnetv3.data import DataError, build_dataset
from fbnetv3.resources import find_config
from fbnetv3.search import InProcess, Trial
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.datasets import (
    chance_map,
    chance_score,
    register_search_split,
    score_name,
)
from fbnetv3.search.fbnet.evaluator import TrainEvaluator
from fbnetv3.search.fbnet.keys import get_search_cfg
from tests.search.executors.running import evaluate_all

_OPTS = [
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
    *("SOLVER.MAX_EPOCHS", 3.0, "SEARCH.HOLD_OUT", 60, "SEARCH.CLASSES", 0),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of 240 digits, each with its parity and whether it is above 4."""
    folder = tmp_path_factory.mktemp("digits")
    rows = ["path,labels"]
    digits = load_digits()
    targets = digits.target[:240].tolist()
    for i, (pixels, digit) in enumerate(zip(digits.images[:240], targets, strict=True)):
        Image.fromarray((pixels * 15).astype("uint8")).resize((16, 16)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'|'.join(['odd'] * (digit % 2) + ['large'] * (digit > 4))}")
    (folder / "train.csv").write_text("\n".join(rows))
    return str(folder / "train.csv")


def _setup(table: str, *opts: object) -> SearchSetup:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config("search/digits.yaml")))
    cfg.merge_from_list([*_OPTS, "DATASETS.TRAIN", (table,), "DATASETS.TEST", (table,), *opts])
    return SearchSetup(cfg)


def test_candidates_are_scored_by_mean_average_precision(digits: str, tmp_path: Path) -> None:
    setup = _setup(digits)
    space = setup.space.space
    levels = space.canonical(space.sizes[None] // 2)
    trial = Trial(space.ids(levels)[0], 0, 0, space.configs(levels)[0])
    (done,) = evaluate_all(InProcess(), TrainEvaluator(setup, str(tmp_path)), [trial])
    assert done.reason is None
    metrics = [json.loads(line) for line in (tmp_path / trial.id / "metrics.json").open()]
    (last,) = [row["val/mAP_ema"] for row in metrics if "val/mAP_ema" in row][-1:]
    assert done.score == pytest.approx(last)
    assert sorted(trial.reports) == [1, 2, 3]
    assert score_name(setup.cfg) == "mAP (%)"


def test_chance_is_a_little_above_the_share_of_images(digits: str) -> None:
    """The expected average precision of random scores is the share of images with the class."""
    setup = _setup(digits)
    held_out = build_dataset(register_search_split(setup.cfg)[1])
    assert len(held_out) == 60
    shares = [sum(c in labels for labels in held_out.targets) / 60 for c in (0, 1)]
    mean = 100 * sum(shares) / 2
    assert mean < chance_score(setup.cfg) < mean + 35
    assert chance_score(setup.cfg) == chance_map(held_out)


def test_classes_are_not_selected(digits: str) -> None:
    with pytest.raises(DataError, match="several labels; cannot select classes"):
        chance_score(_setup(digits, "SEARCH.CLASSES", 1).cfg)
