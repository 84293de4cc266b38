"""The networks and last scores of finished trainings, for tables like the paper's Table 3."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fbnetv3.arch import Arch, count_cost
from fbnetv3.engine.metrics import last_scores
from fbnetv3.io import read_file
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import arch_of
from fbnetv3.weights.run_folder import exported_weights


@dataclass(frozen=True)
class TrainedRun:
    """A finished training.

    Attributes:
        name: Name of the folder of the run.
        resolution: Side of the input in pixels.
        macs: Multiply-adds for one image.
        params: Number of trainable parameters.
        num_classes: Number of classes.
        top1: Top-1 accuracy of the raw weights in the last evaluation, in percent; None: not
            measured.
        top1_ema: Top-1 accuracy of the averaged (EMA) weights in the last evaluation, in percent;
            None: not measured.
        dataset: Name or path of the data set of the accuracies; None: unknown.
    """

    name: str
    resolution: int
    macs: int
    params: int
    num_classes: int
    top1: float | None
    top1_ema: float | None
    dataset: str | None = None


def read_run(folder: str | os.PathLike[str]) -> TrainedRun:
    """Returns the network and the scores of a finished training.

    Args:
        folder: OUTPUT_DIR of the training of an FBNet classifier.

    Raises:
        FBNetError: The folder holds no finished training of an FBNet, or a file cannot be read.
    """
    folder = Path(folder)
    exported = exported_weights(folder)
    _, metadata = read_tensors(exported)
    check_metadata(metadata, exported)
    arch, classes = arch_of(metadata, None, exported), metadata.get("classes")
    if not isinstance(arch, Arch) or not classes:
        raise WeightsFileError(
            f"{exported} does not hold an FBNet classifier; give the OUTPUT_DIR of the training of "
            "an FBNet classifier"
        )
    side = int(metadata.get("resolution") or arch.resolution)
    cost, scores = count_cost(arch.replace(num_classes=len(classes)), side), _scores(folder)
    return TrainedRun(
        folder.resolve().name, side, cost.macs, cost.params, len(classes), *scores, test_set(folder)
    )


def test_set(folder: Path) -> str | None:
    """Returns the first data set of DATASETS.TEST of a training; None if the config has none."""
    path = folder / "config.yaml"
    config = parse_mapping(read_file(path, "config").decode()) if path.is_file() else {}
    section = config.get("DATASETS")
    tested = section.get("TEST") if isinstance(section, Mapping) else None
    first = tested[0] if isinstance(tested, list | tuple) and tested else tested
    return first if isinstance(first, str) and first else None


def _scores(folder: Path) -> tuple[float | None, float | None]:
    scores = last_scores(folder / "metrics.json")
    return scores.get("val/top1"), scores.get("val/top1_ema")
