"""Labelled images that a CSV or Parquet file lists, with one label each or several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from fbnetv3.config import CfgNode
from fbnetv3.data import DataError, build_dataset
from fbnetv3.data.labels import class_counts_of, label_tensor
from fbnetv3.data.pack import pack
from fbnetv3.training import train
from fbnetv3.zoo.classifier import from_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(path)
    return tmp_path


def write(folder: Path, *rows: str, header: str = "path,label") -> str:
    (folder / "x.csv").write_text("\n".join([header, *rows]))
    return str(folder / "x.csv")


def test_one_label_per_image(folder: Path) -> None:
    dataset = build_dataset(write(folder, "images/1.png,dog", 'images/0.png,"cat, small"'))
    assert (dataset.classes, dataset.targets) == (["cat, small", "dog"], [1, 0])
    assert dataset.load(0)[0].getpixel((0, 0)) == (60, 0, 0)
    assert label_tensor(dataset, [0, 1]).tolist() == [1, 0]


def test_several_labels_per_image(folder: Path) -> None:
    rows = ["images/0.png,cat|dog", "images/1.png,", "images/2.png,dog", "images/3.png,ant"]
    dataset = build_dataset(write(folder, *rows, header="path,labels"))
    assert dataset.is_multi_label
    assert dataset.targets == [(1, 2), (), (2,), (0,)]
    assert label_tensor(dataset, [0, 1]).tolist() == [[0, 1, 1], [0, 0, 0]]
    assert class_counts_of(dataset) == [1, 1, 2]
    assert "3 classes: ant 1, cat 1, dog 2" in dataset.summary()
    part = dataset.split(2, seed=0)[0]
    assert part.is_multi_label
    with pytest.raises(DataError, match="several labels"):
        pack(dataset, folder / "shards")


@pytest.mark.parametrize(
    ("column", "labels", "targets"),
    [
        ("label", ["b", "a"], [1, 0]),
        ("labels", [["b", "a"], []], [(0, 1), ()]),
        ("labels", [0, None], [(0,), ()]),
    ],
)
def test_parquet(folder: Path, column: str, labels: list[Any], targets: list[Any]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"path": ["images/0.png", "images/1.png"], column: labels})
    parquet.write_table(table, folder / "x.parquet")
    assert build_dataset(str(folder / "x.parquet")).targets == targets


def test_a_list_of_classes_fixes_their_order(folder: Path) -> None:
    (folder / "classes.txt").write_text("dog\nbird\ncat\n")
    assert build_dataset(write(folder, "images/0.png,cat")).classes == ["dog", "bird", "cat"]
    with pytest.raises(DataError, match=r"line 2: classes\.txt lacks cow"):
        build_dataset(write(folder, "images/0.png,cow"))


def test_a_list_of_classes_that_is_not_utf_8_is_refused(folder: Path) -> None:
    (folder / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"classes\.txt: cannot be read as UTF-8"):
        build_dataset(write(folder, "images/0.png,cat"))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["/etc/passwd,a"], "path,label", r"line 2: path '/etc/passwd' is not a relative path"),
        (["images/../../x.png,a"], "path,label", "is not a relative path"),
        (["images/0.png,a", "images/0.png,b"], "path,label", "line 3: .* was in line 2 already"),
        (["images/0.png,"], "path,label", "line 2: images/0.png has no label"),
        (["images/0.png,a,b"], "path,label", "line 2 has 3 columns, but the header has 2"),
        (["", "images/0.png,a", "", "images/0.png,a,b"], "path,label", "line 5 has 3 columns"),
        (["", "", "images/0.png,"], "path,label", "line 4: images/0.png has no label"),
        (["images/0.png,a"], "file,label", "the columns are file, label; allowed: path and label"),
        ([], "path,label", "the table has no rows"),
    ],
)
def test_tables_that_are_refused(rows: list[str], header: str, message: str, folder: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        build_dataset(write(folder, *rows, header=header))
    assert "\n" not in str(error.value)


def test_damaged_parquet_is_refused(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    (folder / "x.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        build_dataset(str(folder / "x.parquet"))


def test_a_training_on_several_labels(
    material: Path, tiny: Callable[..., CfgNode], tmp_path: Path
) -> None:
    """Each digit has its parity and whether it is above 4; both are scored."""
    for part in ("train", "test"):
        rows = ["path,labels"]
        for path in sorted((material / part).glob("*/*.png")):
            digit = int(path.parent.name[:1])
            names = ["odd"] * (digit % 2) + ["large"] * (digit > 4)
            rows.append(f"{path.relative_to(material)},{'|'.join(names)}")
        (material / f"{part}.csv").write_text("\n".join(rows))
    cfg = tiny(
        DATASETS__TRAIN=str(material / "train.csv"),
        DATASETS__TEST=str(material / "test.csv"),
        SOLVER__KEEP_BEST="val/mAP_ema",
    )
    scores = train(cfg, pictures=False)
    classifier = from_file(Path(cfg.OUTPUT_DIR) / "model.safetensors")
    dataset = build_dataset(cfg.DATASETS.TEST[0])
    probabilities = classifier.scores([dataset.image(i) for i in range(len(dataset))])
    truth = label_tensor(dataset, range(len(dataset))).numpy()
    expected = np.mean([average_precision_score(truth[:, c], probabilities[:, c]) for c in (0, 1)])
    assert scores["val/mAP"] == pytest.approx(100 * expected, abs=0.5)
    assert not torch.allclose(probabilities.sum(1), torch.ones(len(dataset)))
