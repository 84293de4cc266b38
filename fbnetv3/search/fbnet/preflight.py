"""Finds errors that would make every candidate or winner fail, before the first training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fbnetv3.classification.build import check_images
from fbnetv3.config import CfgNode, recipe_from_config
from fbnetv3.config.archs import is_detector
from fbnetv3.config.ranges import check_numbers
from fbnetv3.data import build_dataset
from fbnetv3.engine.process import RuntimeContext, device_from_config, runtime_context
from fbnetv3.errors import FBNetError
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.datasets import dataset_names, open_training_set, register_search_split
from fbnetv3.search.fbnet.tasks import check_task
from fbnetv3.search.fbnet.trainings import candidate_training, winner_config
from fbnetv3.training import prepare_task


def check_trainings(setup: SearchSetup) -> None:
    """Checks the data, sets up a candidate's training and builds the config of a winner.

    Files that are written for these checks are in a temporary folder.

    Args:
        setup: Config and space of the search.

    Raises:
        FBNetError: A number is out of range; the space does not fit the task; the data are missing
            or broken, or have fewer classes or images than the config asks for; none of the space's
            probes (a few of its candidates) can be set up; or SEARCH.FINAL makes an invalid config.
    """
    check_numbers(setup.cfg)
    check_task(setup)
    _check_data(setup.cfg)
    probes = setup.space.probes()
    with tempfile.TemporaryDirectory() as folder:
        _check_candidates(setup, probes, Path(folder))
        _check_winner(setup, probes[0], Path(folder))


def _check_data(cfg: CfgNode) -> None:
    """Checks that the training set has as many classes and images as the search needs.

    In a search over classifiers, all images on which candidates are trained or scored are decoded
    here, and not again before each training.

    Raises:
        FBNetError: The training set has fewer classes or images than the config asks for, a data
            set cannot be opened, or an image is broken and DATA.SKIP_BROKEN is not set.
    """
    if is_detector(cfg):
        # imported here, since searches over classifiers need no detectors
        from fbnetv3.search.fbnet.detectors import check_detector_data

        check_detector_data(cfg, *dataset_names(cfg))
        return
    train, classes, held = open_training_set(cfg), cfg.SEARCH.CLASSES, cfg.SEARCH.HOLD_OUT
    source, available = train.name, len(train.classes)
    if classes > available:
        raise SearchError(
            f"SEARCH.CLASSES={classes}: {source} has {available} classes; allowed: 1 to "
            f"{available}, or 0 for all"
        )
    if classes:
        train = train.select_classes(classes, cfg.SEED)
        source = f"the part of {source} with {classes} classes"
    if held >= len(train):
        raise SearchError(
            f"SEARCH.HOLD_OUT={held}: {source} has {len(train)} images; allowed: 1 to "
            f"{len(train) - 1}, or 0 to score on DATASETS.TEST"
        )
    for name in register_search_split(cfg):
        check_images(cfg, build_dataset(name, skip_broken=cfg.DATA.SKIP_BROKEN))


def _check_candidates(setup: SearchSetup, configs: list[dict[str, Any]], folder: Path) -> None:
    """Raises an error if none of the given candidates can be trained."""
    for config in configs:
        try:
            training = candidate_training(setup, config, folder)
            prepare_task(training)(training, on_cpu(training))
        except FBNetError as error:
            reason = error
        else:
            return
    raise SearchError(f"candidates cannot be trained: {reason}") from reason


def on_cpu(cfg: CfgNode) -> RuntimeContext:
    """Returns a context on the CPU: the searching process leaves the memory of GPUs to its workers.

    Raises:
        ConfigError: MODEL.DEVICE is not a device of this machine.
    """
    device_from_config(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return runtime_context(cfg)


def _check_winner(setup: SearchSetup, config: dict[str, Any], folder: Path) -> None:
    """Raises an error if SEARCH.FINAL has an unknown key or a value that is not allowed."""
    try:
        cfg = winner_config(setup, config, folder / "winner")
        check_numbers(cfg)
        recipe_from_config(cfg, iters_per_epoch=1)
    except FBNetError as error:
        raise SearchError(f"SEARCH.FINAL: {error}") from error
