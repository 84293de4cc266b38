"""Images are decoded once before the first candidate, for at most some seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fbnetv3.errors import FBNetError

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet import read_search_config, run_search


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(8):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def _cfg(photos: Path, **values: Any) -> Any:
    keys = {
        "DATASETS.TRAIN": (str(photos / "train"),),
        "DATASETS.TEST": (str(photos / "val"),),
        "DATA.TRAIN_LIMIT": 0,
        "SEARCH.HOLD_OUT": 0,
        "SEARCH.WORKERS": 0,
        "SEARCH.POOL_SIZE": 100,
        "SOLVER.IMS_PER_BATCH": 8,
        **values,
    }
    return read_search_config(
        "search/digits.yaml", [item for pair in keys.items() for item in pair]
    )


@pytest.mark.parametrize(("part", "held"), [("train", 0), ("train", 4), ("val", 0)])
def test_a_broken_image_ends_a_search_before_its_first_candidate(
    photos: Path, part: str, held: int
) -> None:
    broken = photos / part / "a" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(FBNetError, match=r"3\.png"):
        run_search(_cfg(photos, **{"SEARCH.HOLD_OUT": held}), photos / "run")
    assert not (photos / "run" / "candidates").exists()
