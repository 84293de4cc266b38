"""The folders in which a search's winners train: one for each candidate that won under a name."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, get_cfg, get_value, iter_keys
from fbnetv3.config.node import same_value
from fbnetv3.config.precedence import EXCLUSIVE_KEYS
from fbnetv3.config.recipes import NESTEROV_OPTIMIZERS, RECIPE_KEYS
from fbnetv3.engine.metrics import last_scores
from fbnetv3.errors import FBNetError
from fbnetv3.io import read_text
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.keys import FILE_KEYS, NON_SCORE_KEYS
from fbnetv3.search.fbnet.trainings import winner_config

_GROUPS = ("MODEL.", "MODEL_EMA.", "INPUT.", "SOLVER.")
"""Groups of keys that describe a network and its recipe, as the fields of a recipe do."""
_SCORES = ("val/top1", "val/top1_ema", "val/mAP", "val/mAP_ema", "bbox/AP", "bbox/AP_ema")
"""Scores of a winner's own training that a report shows."""
_MOST_KEYS = 3
"""Largest number of keys that a line names."""


def choose_training(setup: SearchSetup, config: Mapping[str, Any], stem: Path) -> Path:
    """Returns the folder for a winner's training, so that no other candidate's run is continued.

    It is ``NAME``, or the first of ``NAME_2``, ``NAME_3``, ... that holds no run or a run of this
    candidate. A winner that has not changed since it was last written keeps its folder.

    Args:
        setup: Config and space of the search.
        config: Value by variable.
        stem: Path of the winner's config without suffix.

    Raises:
        ConfigError: SEARCH.FINAL has an unknown key, or a value of the wrong type.
    """
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary) / stem.name
        wanted = _candidate_values(winner_config(setup, config, draft), draft.parent)
    path = stem.with_name(f"{stem.name}.yaml")
    current = _training_of(path)
    is_kept = current == stem or holds_run(current)
    if is_kept and _differences(_read(path, stem.parent), wanted) == []:
        return current
    later = (stem.with_name(f"{stem.name}_{number}") for number in itertools.count(2))
    return next(
        folder
        for folder in itertools.chain((stem,), later)
        if not holds_run(folder)
        or _differences(_read(_run_config(folder), stem.parent), wanted) == []
    )


def holds_run(folder: Path) -> bool:
    """Returns whether a training has begun in a folder."""
    return _run_config(folder).is_file()


def training_lines(path: Path) -> list[str]:
    """Returns a line with the last scores of a winner's own training; [] if it has none.

    If the training has another network or recipe than the winner, the line names the keys instead.

    Args:
        path: The winner's config, ``NAME.yaml``.
    """
    folder = _training_of(path)
    if not holds_run(folder):
        return []
    run, winner = (_read(file, path.parent) for file in (_run_config(folder), path))
    keys = _differences(run, winner)
    if keys is None:
        return [f"{folder.name}/config.yaml or {path.name} cannot be read: no scores of a training"]
    if keys:
        named = ", ".join(keys[:_MOST_KEYS]) + (" and others" if len(keys) > _MOST_KEYS else "")
        other = f"{folder.name}/ holds a training of another network or recipe ({named})"
        return [f"{other}, whose scores are left out"]
    last = last_scores(folder / "metrics.json")
    parts = [
        f"{key.rpartition('/')[2]} {last[key]:.4g}"
        for key in last
        if key in _SCORES and isinstance(last[key], float)
    ]
    return [f"trained: {', '.join(parts)}"] if parts else []


def _run_config(folder: Path) -> Path:
    return folder / "config.yaml"


def _training_of(path: Path) -> Path:
    """Returns the folder in which a winner's config trains; ``NAME`` if it names none beside it."""
    cfg, stem = _load(path), path.parent / path.name.removesuffix(".yaml")
    # The folder of the search may have been moved, so that only the last part counts.
    name = "" if cfg is None else Path(cfg.OUTPUT_DIR).name
    numbered = re.fullmatch(rf"{re.escape(stem.name)}_[0-9]+", name)
    return stem.with_name(name) if numbered else stem


def _load(path: Path) -> CfgNode | None:
    """Returns the config of a training; None if it is missing or damaged."""
    cfg = get_cfg()
    try:
        cfg.merge_from_file(str(path))
    except (FBNetError, OSError):
        return None
    return cfg


def _read(path: Path, folder: Path) -> dict[str, Any] | None:
    """Returns the values of a config that describe its candidate; None if a file is damaged.

    Args:
        path: Config of a winner, or of its training.
        folder: Folder with the winners' files of architectures.
    """
    cfg = _load(path)
    try:
        return None if cfg is None else _candidate_values(cfg, folder)
    except (FBNetError, OSError, UnicodeDecodeError):
        return None


def _candidate_values(cfg: CfgNode, folder: Path) -> dict[str, Any]:
    """Returns the values of a network and its recipe by key, with the architecture as text.

    Of other files, only the names are compared, since folders may be moved.

    Args:
        cfg: Config of a training.
        folder: Folder with the winners' files of architectures.
    """
    values = {
        key: value
        for key, value in iter_keys(cfg)
        if key.startswith(_GROUPS) or key in RECIPE_KEYS.values()
        if key not in NON_SCORE_KEYS
    }
    for epochs, iterations in EXCLUSIVE_KEYS.items():
        if get_value(cfg, epochs) > 0:
            values.pop(iterations, None)  # not written, since it is not read
    if cfg.SOLVER.OPTIMIZER not in NESTEROV_OPTIMIZERS:
        values.pop("SOLVER.NESTEROV", None)  # not read; version 0.1 wrote another default
    names = {key: Path(str(values[key])).name for key in FILE_KEYS if values.get(key)}
    arch = folder / names.get("MODEL.ARCH", "")
    if arch.name.endswith("_arch.yaml") and arch.is_file():
        names["MODEL.ARCH"] = read_text(arch, "config")
    elif "MODEL.ARCH" in names and not names["MODEL.ARCH"].endswith(".yaml"):
        names["MODEL.ARCH"] = values["MODEL.ARCH"]  # a name such as timm/resnet18, and no path
    return values | names


def _differences(
    before: Mapping[str, Any] | None, now: Mapping[str, Any] | None
) -> list[str] | None:
    """Returns the keys whose values differ, sorted; None if one of the configs cannot be read."""
    if before is None or now is None:
        return None
    return sorted(k for k in now if k not in before or not same_value(before[k], now[k]))
