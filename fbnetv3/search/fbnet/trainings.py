"""The training configs of candidates and winners."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, recipe_from_config, recipe_to_config
from fbnetv3.config.archs import is_detector
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.datasets import num_classes_from_config, register_search_split
from fbnetv3.search.fbnet.tasks import space_of_detectors

_CLASSIFIER_KEYS = ("MODEL.ARCH_VARIANT", "INPUT.RESOLUTION")
"""Keys of a candidate's network that a detector does not take from the space."""


def candidate_training(
    setup: SearchSetup, config: Mapping[str, Any], folder: Path, replicate: int = 0
) -> CfgNode:
    """Returns the config of a candidate's training on the data of SEARCH.CLASSES and HOLD_OUT.

    Args:
        setup: Config and space of the search.
        config: Value by variable.
        folder: Folder of the training. ``arch.yaml`` is written to it if the space has rows of
            FBNets.
        replicate: Number, at least 0, that is added to SEED unless SEED is negative.
    """
    cfg = _candidate_config(setup, config, folder / "arch.yaml")
    train_name, test_name = register_search_split(setup.cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train_name,), (test_name,)
    cfg.OUTPUT_DIR = str(folder)
    cfg.SOLVER.KEEP_CHECKPOINTS = 1
    if cfg.SEED >= 0:  # below 0, every training draws a seed of its own
        cfg.SEED += replicate
    if not is_detector(cfg) or setup.cfg.SEARCH.HOLD_OUT:
        cfg.DATA.CHECK_IMAGES = False  # preflight.py checks the images in these two cases
    loaders = setup.cfg.SEARCH.LOADER_WORKERS
    if isinstance(loaders, int) and loaders >= 0:
        cfg.DATALOADER.NUM_WORKERS = loaders
    cfg.freeze()
    return cfg


def winner_config(setup: SearchSetup, config: Mapping[str, Any], stem: Path) -> CfgNode:
    """Returns the config of a winner's training, with the changes of SEARCH.FINAL.

    A winner trains on all classes of DATASETS.TRAIN, and no images are held out. The architecture
    is written with the number of classes for which its costs were computed.

    Args:
        setup: Config and space of the search.
        config: Value by variable.
        stem: Folder of the winner's training, beside the winner's config. The architecture of an
            FBNet is written to ``STEM_arch.yaml``. The config refers to this file by a relative
            path, so that the folder can be moved.

    Raises:
        ConfigError: SEARCH.FINAL has an unknown key, or a value of the wrong type.
    """
    arch_file = stem.with_name(f"{stem.name}_arch.yaml")
    cfg = _candidate_config(setup, config, arch_file, num_classes_from_config(setup.cfg))
    if str(cfg.MODEL.ARCH) == str(arch_file.resolve()):
        cfg.MODEL.ARCH = arch_file.name
    cfg.OUTPUT_DIR = str(stem)
    cfg.merge_from_list(list(setup.cfg.SEARCH.FINAL))
    return cfg


def _candidate_config(
    setup: SearchSetup, config: Mapping[str, Any], arch_file: Path, num_classes: int = 1000
) -> CfgNode:
    """Returns the search's config with a candidate's recipe and network, without SEARCH."""
    cfg: CfgNode = setup.training.clone()
    cfg.defrost()
    if is_detector(cfg):
        # imported here, since searches over classifiers need no detectors
        from fbnetv3.search.fbnet.detectors import detector_values

        values = detector_values(setup.cfg, space_of_detectors(setup), config)
    else:
        values = recipe_to_config(setup.space.recipe(config, recipe_from_config(setup.cfg)))
    network = setup.space.network_keys(config, num_classes, arch_file)
    if is_detector(cfg):  # its config keeps MODEL.ARCH_VARIANT, and its images need not be square
        network = {k: v for k, v in network.items() if k not in _CLASSIFIER_KEYS}
    elif "INPUT.RESOLUTION" in network:
        network["INPUT.RESIZE"] = _resize(setup.cfg, network["INPUT.RESOLUTION"])
    values |= network
    cfg.merge_from_list([item for pair in values.items() for item in pair])
    return cfg


def _resize(cfg: CfgNode, resolution: int) -> int:
    """Returns INPUT.RESIZE for a resolution, in the config's ratio to INPUT.RESOLUTION.

    Returns 0 if INPUT.RESIZE or INPUT.RESOLUTION is 0 in the config.
    """
    if not (cfg.INPUT.RESIZE and cfg.INPUT.RESOLUTION):
        return 0
    return round(resolution * cfg.INPUT.RESIZE / cfg.INPUT.RESOLUTION)
