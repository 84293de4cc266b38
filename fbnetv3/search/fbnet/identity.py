"""The config values and files on which the scores of a search depend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, get_value, iter_keys
from fbnetv3.io import sha256_of
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.keys import (
    ADDED_KEYS,
    FILE_KEYS,
    NON_SCORE_KEYS,
    RESUMABLE_KEYS,
    get_search_cfg,
)
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.run_folder import weights_in


def file_hashes(cfg: CfgNode) -> dict[str, str]:
    """Returns the sha256 of each file that affects the results, by the key that contains its path.

    If a key names the folder of a training, the weights file in that folder is hashed. Values that
    are no existing file, such as the name of a built-in space, are left out.

    Raises:
        SearchError: A file cannot be read.
    """
    values = {key: get_value(cfg, key) for key in FILE_KEYS}
    paths = {key: _file_of(Path(value)) for key, value in values.items() if value}
    try:
        return {key: sha256_of(path) for key, path in paths.items() if path.is_file()}
    except OSError as error:
        reason = error.strerror or str(error)
        raise SearchError(f"cannot read {error.filename}: {reason}; check the path") from error


def _file_of(path: Path) -> Path:
    """Returns the weights in the folder of a training; any other path as it is."""
    try:
        return weights_in(path) if path.is_dir() else path
    except WeightsFileError:
        return path  # a folder of anything else is refused where the key is read


def values_affecting_scores(cfg: CfgNode) -> dict[str, Any]:
    """Returns the config values and file hashes that a search's results depend on, by key.

    All keys of the config are included, except RESUMABLE_KEYS and those of ADDED_KEYS that have
    their default (see ``keys.py``). The values are plain Python objects, and nested keys are
    flattened to dotted names such as ``SEARCH.SPACE``. SEARCH.FINAL_CLASSES is left out if it
    equals SEARCH.CLASSES, the number of classes for which earlier versions computed the costs. The
    hash of MODEL.WEIGHTS is left out, because earlier versions did not store it.
    """
    values = dict(iter_keys(parse_mapping(cfg.dump())))
    defaults = default_values()
    kept = {
        key: value
        for key, value in values.items()
        if key not in RESUMABLE_KEYS
        if key not in ADDED_KEYS or value != defaults[key]
    }
    if cfg.SEARCH.FINAL_CLASSES == cfg.SEARCH.CLASSES:
        kept.pop("SEARCH.FINAL_CLASSES", None)
    if kept.get("SOLVER.NESTEROV", False) is None:
        kept["SOLVER.NESTEROV"] = False  # the value that earlier versions stored for the default
    hashes = file_hashes(cfg)
    hashes.pop("MODEL.WEIGHTS", None)
    return kept | {f"sha256 of {key}": value for key, value in hashes.items()}


def default_values() -> dict[str, Any]:
    """Returns the plain default value of each key of a search's config."""
    return dict(iter_keys(parse_mapping(get_search_cfg().dump())))


def evaluator_config(setup: SearchSetup) -> dict[str, Any]:
    """Returns the values on which scores and costs depend, besides the candidate itself, by key.

    The keys of the training, the keys of the data and ``_SCORE_KEYS`` are included if their values
    differ from the defaults. The sha256 of the space's table, of the architecture file and of the
    teacher's weights are included, too. Keys that hardly affect scores, such as MODEL.DEVICE, and
    the latency table are left out.

    Args:
        setup: Config and space of the search.
    """
    defaults = default_values()
    if setup.cfg.SOLVER.NESTEROV is None:
        defaults["SOLVER.NESTEROV"] = False
    values = {
        key: value
        for key, value in values_affecting_scores(setup.cfg).items()
        if not key.startswith(("SEARCH.", "sha256 of SEARCH.")) or key in _SCORE_KEYS
        if key not in NON_SCORE_KEYS and value != defaults.get(key)
    }
    if "sha256 of MODEL.ARCH" in values or setup.space.has_architecture:
        values.pop("MODEL.ARCH", None)  # the hash of the file or of the space stands for it
    return {**values, "sha256 of SEARCH.SPACE": setup.space.digest}


_SCORE_KEYS = (
    "SEARCH.CLASSES",
    "SEARCH.FINAL_CLASSES",
    "SEARCH.HOLD_OUT",
    "SEARCH.HOLD_OUT_SAMPLING",
)
"""Keys of the group SEARCH on which a score or a statistic depends."""
