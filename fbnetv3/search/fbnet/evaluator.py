"""Candidates of an FBNet space as trainings: configs, data, scores."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, get_cfg, recipe_from_config, recipe_to_config
from fbnetv3.data import ImageDataset, build_dataset, list_datasets, register_dataset
from fbnetv3.io import atomic_write, refuse_links_out
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config import add_search_config, fixed_variables
from fbnetv3.search.fbnet.mirror import Mirror, is_uri
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.trial import Trial

_log = logging.getLogger(__name__)
_CHECKPOINTS, _WEIGHTS = "checkpoint_*.pt", "*.safetensors"


def get_search_cfg() -> CfgNode:
    """Returns the default config of a search: that of a training, and the group SEARCH."""
    cfg: CfgNode = add_search_config(get_cfg())
    return cfg


def space_from_config(cfg: CfgNode) -> FBNetSpace:
    """Returns the space that a config names, with its fixed variables."""
    return FBNetSpace.from_yaml(cfg.SEARCH.SPACE, fixed_variables(cfg))


def num_classes_from_config(cfg: CfgNode) -> int:
    """Returns the classes that candidates tell apart: their cost depends on it."""
    if cfg.SEARCH.CLASSES:
        return int(cfg.SEARCH.CLASSES)
    return int(cfg.MODEL.NUM_CLASSES) or len(open_training_set(cfg).classes)


def open_training_set(cfg: CfgNode) -> ImageDataset:
    """Returns DATASETS.TRAIN, all of it.

    Raises:
        FBNetError: it or DATASETS.TEST is not one data set, or it is not there.
    """
    return _dataset(_dataset_names(cfg)[0])


def _dataset_names(cfg: CfgNode) -> tuple[str, str]:
    """Returns DATASETS.TRAIN and TEST."""
    for part in ("TRAIN", "TEST"):
        names = list(cfg.DATASETS[part])
        if len(names) != 1:
            raise SearchError(f"DATASETS.{part}={names}: a search takes one data set")
    return cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0]


def candidate_config(
    cfg: CfgNode, space: FBNetSpace, config: Mapping[str, Any], arch_file: Path
) -> CfgNode:
    """Returns the training of a candidate, as ``train_net.py`` reads it.

    Args:
        cfg: of the search.
        space: of the candidate.
        config: value by variable.
        arch_file: where the architecture is written, if the space has one.
    """
    values = dict(parse_mapping(cfg.dump()))
    del values["SEARCH"]
    found = get_cfg()
    found.merge_from_other_cfg(values)
    base = recipe_from_config(cfg)
    opts = recipe_to_config(space.recipe(config, base))
    if space.has_architecture:
        arch = space.arch(config)
        with atomic_write(arch_file) as temporary:
            temporary.write_text(arch.to_yaml(), encoding="utf-8")
        opts |= {
            "MODEL.ARCH": str(arch_file.resolve()),
            "MODEL.ARCH_VARIANT": "",
            "MODEL.WIDTH": 1.0,
            "MODEL.DEPTH": 1.0,
            "INPUT.RESOLUTION": arch.resolution,
            "INPUT.RESIZE": _resize(cfg, arch.resolution),
        }
    found.merge_from_list([x for pair in opts.items() for x in pair])
    return found


def _resize(cfg: CfgNode, resolution: int) -> int:
    """Keeps the ratio of INPUT.RESIZE and INPUT.RESOLUTION, where a config gives both."""
    if not (cfg.INPUT.RESIZE and cfg.INPUT.RESOLUTION):
        return 0
    return round(resolution * cfg.INPUT.RESIZE / cfg.INPUT.RESOLUTION)


def candidate_training(
    cfg: CfgNode, space: FBNetSpace, config: Mapping[str, Any], folder: Path
) -> CfgNode:
    """Returns the training of a candidate as the search runs it: on its part of the data.

    Args:
        cfg, space, config: see candidate_config.
        folder: of the training.
    """
    found = candidate_config(cfg, space, config, folder / "arch.yaml")
    train_name, test_name = _register_split(cfg)
    found.DATASETS.TRAIN, found.DATASETS.TEST = (train_name,), (test_name,)
    found.OUTPUT_DIR = str(folder)
    found.SOLVER.KEEP_CHECKPOINTS = 1
    found.freeze()
    return found


def winner_config(
    cfg: CfgNode, space: FBNetSpace, config: Mapping[str, Any], stem: Path
) -> CfgNode:
    """Returns the training of a winner: all data, and the changes of SEARCH.FINAL.

    Args:
        cfg, space, config: see candidate_config.
        stem: path without suffix; the architecture goes to ``STEM_arch.yaml``, which the config
            names relative to itself: the folder of both may be moved.
    """
    arch_file = stem.with_name(f"{stem.name}_arch.yaml")
    found = candidate_config(cfg, space, config, arch_file)
    if space.has_architecture:
        found.MODEL.ARCH = arch_file.name
    found.OUTPUT_DIR = str(stem)
    found.merge_from_list(list(cfg.SEARCH.FINAL))
    return found


@dataclass(frozen=True)
class TrainEvaluator:
    """Trains a candidate through the project's loop and returns its top-1.

    Each has a folder: a checkpoint, from which a killed one goes on, its scores by epoch, and
    in the end ``result.json``. EMA weights are scored where EMA is on.

    Attributes:
        config: the search's config, as yaml.
        folder: of all candidates: ``candidates/`` of the run, or a URI (see :class:`Mirror`).
    """

    config: str
    folder: str

    def __call__(self, trial: Trial) -> float:
        """Trains and scores; returns at once where that was finished before a kill."""
        if not is_uri(self.folder):
            return self._score(trial, Path(self.folder) / trial.id, _keep_nothing)
        with Mirror(self.folder).folder(trial.id) as (folder, copy):
            return self._score(trial, folder, copy.try_push)

    def _score(self, trial: Trial, folder: Path, keep: Callable[[], None]) -> float:
        """Trains and scores in a folder; ``keep`` is called when there is something to keep."""
        done, told = _read_json(folder / "result.json"), _read_json(folder / "scores.json")
        if told is None:  # what went on from a checkpoint would not tell those before it
            _remove(folder, _CHECKPOINTS)
        reports = {int(e): s for e, s in (told or {}).items()}
        if not done or not reports or done.get("max_epochs", -1) != trial.max_epochs:
            done = {}
        for epoch, score in reports.items():
            trial.report(epoch, score)
        if done:
            return float(done["score"])
        search_cfg = self._cfg()
        cfg = candidate_training(search_cfg, space_from_config(search_cfg), trial.config, folder)
        key = "val/top1_ema" if cfg.MODEL_EMA.ENABLED else "val/top1"

        def on_eval(epochs: float, scores: dict[str, float]) -> None:
            epoch = round(epochs)
            reports[epoch] = scores[key]
            _write_json(folder / "scores.json", reports)
            trial.report(epoch, scores[key])

        _train(cfg, folder / "log.txt", trial.max_epochs, on_eval, lambda path: keep())
        score = reports[max(reports)]
        _write_json(folder / "result.json", {"score": score, "max_epochs": trial.max_epochs})
        _remove(folder, _CHECKPOINTS, *(() if search_cfg.SEARCH.KEEP_WEIGHTS else (_WEIGHTS,)))
        keep()
        return score

    def _cfg(self) -> CfgNode:
        cfg = get_search_cfg()
        cfg.merge_from_other_cfg(parse_mapping(self.config))
        return cfg


def _keep_nothing() -> None:
    """A folder is where it stays."""


def _train(cfg: CfgNode, log: Path, max_epochs: int | None, on_eval: Any, on_save: Any) -> None:
    """Trains; what the loop prints goes to a log. A stop by signal becomes an interrupt."""
    log.parent.mkdir(parents=True, exist_ok=True)
    refuse_links_out(log.parent, (log.name,))
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stderr(file):
        # what these imports warn of belongs into the log, too
        from fbnetv3.engine.hooks import StoppedError
        from fbnetv3.training import train

        try:
            train(
                cfg,
                resume=True,
                stop_after=max_epochs,
                on_eval=on_eval,
                on_save=on_save,
                pictures=False,
                raw_scores=False,
            )
        except StoppedError as error:
            raise KeyboardInterrupt from error


def _register_split(cfg: CfgNode) -> tuple[str, str]:
    """Makes the search's training and validation set known by name; returns the names."""
    train, test = _dataset_names(cfg)
    classes, held = cfg.SEARCH.CLASSES, cfg.SEARCH.HOLD_OUT
    if not classes and not held:
        return train, test
    stem = f"{train}:{classes or 'all'}_classes:{held}_held_out:seed_{cfg.SEED}"
    names = (f"{stem}:train", f"{stem}:test")
    sources = (train, train) if held else (train, test)
    for part, (name, source) in enumerate(zip(names, sources, strict=True)):
        if name not in list_datasets():
            register_dataset(name)(functools.partial(_part, source, classes, held, cfg.SEED, part))
    return names


@functools.lru_cache(maxsize=4)
def _dataset(name: str) -> ImageDataset:
    """Opens a data set once per process: decoded pixels are kept from candidate to candidate."""
    return build_dataset(name)


@functools.lru_cache(maxsize=4)
def _part(source: str, classes: int, held: int, seed: int, part: int) -> ImageDataset:
    dataset = _dataset(source)
    if classes:
        dataset = dataset.select_classes(classes, seed)
    return dataset.split(held, seed)[part] if held else dataset


def _read_json(path: Path) -> dict[str, Any] | None:
    """Returns what a file holds: nothing where there is none, None where it is torn."""
    if not path.exists():
        return {}
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    _log.warning("%s is torn, and as if it were not there: its candidate trains again", path)
    return None


def _remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def _write_json(path: Path, values: Mapping[Any, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")
