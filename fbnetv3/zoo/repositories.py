"""Repositories of Hugging Face's hub from finished trainings: weights, config and model card."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import yaml

from fbnetv3 import imagenet
from fbnetv3.arch import Arch
from fbnetv3.arch.library_names import DEFAULT_RESOLUTION
from fbnetv3.config.files import load_yaml
from fbnetv3.data.transforms import default_resize
from fbnetv3.engine.metrics import last_scores
from fbnetv3.io import atomic_write, read_file
from fbnetv3.weights.hub import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from fbnetv3.weights.load import Weights, read_weights
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import (
    arch_of,
    has_several_labels,
    num_classes_of,
    preprocessing_of,
)
from fbnetv3.weights.records import Metric
from fbnetv3.weights.run_folder import EXPORTED, exported_weights
from fbnetv3.zoo.cards import CLASSIFICATION, DETECTION, CardFacts, card_text
from fbnetv3.zoo.runs import test_set

_SCORES = {"val/top1": "top1", "val/top5": "top5", "val/mAP": "mAP"}
_SCORES |= {"bbox/AP": "AP", "bbox/AP50": "AP50"}
_CONFIG = "config.yaml"


def classifier_config(weights: Weights, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the config.json of a classifier: the arguments of ``HubClassifier``.

    Args:
        weights: Weights that training exported.
        path: Path of the weights, for error messages.

    Raises:
        WeightsFileError: A value of the metadata is missing or not allowed.
        ArchError: The architecture in the metadata is not valid.
    """
    metadata = weights.metadata
    check_metadata(metadata, path)
    arch = arch_of(metadata, None, path)
    count = num_classes_of(weights.tensors, metadata)
    classes = weights.classes or tuple(f"class {i}" for i in range(count))
    saved = preprocessing_of(metadata)
    default = arch.resolution if isinstance(arch, Arch) else DEFAULT_RESOLUTION
    resolution = int(saved.get("resolution", default))
    return {
        "arch": arch.to_dict() if isinstance(arch, Arch) else arch,
        "classes": list(classes),
        "resolution": resolution,
        "resize": int(saved.get("resize", default_resize(resolution))),
        "interpolation": saved.get("interpolation", "bilinear"),
        "mean": list(saved.get("mean", imagenet.MEAN)),
        "std": list(saved.get("std", imagenet.STD)),
        "several_labels": has_several_labels(metadata),
    }


def write_repository(
    run: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str | None = None,
    licence: str = "Apache-2.0",
) -> Path:
    """Writes a folder to upload as a repository of Hugging Face's hub, for a finished training.

    The folder has ``model.safetensors``, a copy of the weights that the training exported (the
    averaged ones, if there are any), ``config.json``, and ``README.md``, the model card.

    Args:
        run: OUTPUT_DIR of the training of a classifier or a detector.
        output: Folder to write; files of these names in it are replaced.
        name: ``OWNER/NAME``, or a title of the card; None: the title is the name of ``run``.
        licence: Licence of the weights.

    Returns:
        The folder.

    Raises:
        FBNetError: The folder holds no finished training, a file cannot be read, or the folder
            cannot be written.
    """
    exported = exported_weights(Path(run))
    weights = read_weights(exported)
    facts = dataclasses.replace(_facts(weights, exported), licence=licence)
    if name is not None:
        place = name if name.count("/") == 1 else None
        facts = dataclasses.replace(facts, title=name.rpartition("/")[2], repository=place)
    files = {
        WEIGHTS_FILE: read_file(exported, "weights"),
        CONFIG_FILE: _config_text(weights, exported).encode(),
        CARD_FILE: card_text(facts).encode(),
    }
    for file, content in files.items():
        with atomic_write(Path(output) / file) as temporary:
            temporary.write_bytes(content)
    return Path(output)


def _config_text(weights: Weights, path: Path) -> str:
    if weights.is_detector:
        config = {"task": DETECTION, "classes": list(weights.classes or ())}
    else:
        config = classifier_config(weights, path)
    return f"{json.dumps({'library_name': 'fbnetv3', **config}, indent=2)}\n"


def _facts(weights: Weights, path: Path) -> CardFacts:
    """Returns the facts of a model card: what the folder of a run says about exported weights."""
    values: dict[str, Any] = {"task": DETECTION, "classes": len(weights.classes or ())}
    values["preprocessing"] = {}
    if not weights.is_detector:
        config = classifier_config(weights, path)
        keys = ("resolution", "resize", "interpolation", "mean", "std")
        values |= {"task": CLASSIFICATION, "classes": len(config["classes"])}
        values["preprocessing"] = {key: config[key] for key in keys}
        if isinstance(config["arch"], dict):
            arch = Arch.from_dict(config["arch"])
            values["arch"] = arch.replace(
                resolution=config["resolution"], num_classes=values["classes"]
            )
    is_average = path.name == EXPORTED[0]
    return CardFacts(
        title=path.parent.resolve().name,
        licence="",
        metrics=_metrics(path.parent, is_average),
        dataset=_dataset(path.parent),
        training=_training(path.parent),
        note="The weights are the moving average (EMA) of the training" if is_average else "",
        **values,
    )


def _metrics(folder: Path, is_average: bool) -> dict[str, Metric]:
    scores = last_scores(folder / "metrics.json")
    end = "_ema" if is_average else ""
    how = "last evaluation of the training" + (", averaged weights" if is_average else "")
    names = {name: f"{key}{end}" for key, name in _SCORES.items()}
    return {n: Metric(scores[key], "measured", how) for n, key in names.items() if key in scores}


def _dataset(folder: Path) -> str | None:
    first = test_set(folder)
    return str(without_folders(first)) if first else None


def without_folders(value: object) -> object:
    """Returns plain values in which only the last part of each absolute path or ~ path is left.

    The folders of an author do not belong into a public card.
    """
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name
    return value


def _training(folder: Path) -> str:
    if not (folder / _CONFIG).is_file():
        return ""
    values = without_folders(load_yaml(folder / _CONFIG))
    text = yaml.safe_dump(values, sort_keys=False).strip()
    return f"`fbnetv3-train --config-file {_CONFIG}`, where {_CONFIG} is:\n\n```yaml\n{text}\n```"
