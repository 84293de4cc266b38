"""The folder of a run: starting, resuming, and removing the files of an earlier run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, ConfigError, get_cfg, get_value, iter_keys
from fbnetv3.config.changes import completed, write_config
from fbnetv3.config.node import same_value
from fbnetv3.engine.checkpoint import Checkpointer, CheckpointError
from fbnetv3.engine.checkpoint_files import names_in
from fbnetv3.engine.distributed import gather_numbers
from fbnetv3.io import WriteError, refuse_links_out
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.user_code import record_user_code, user_code_changes
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.run_folder import EXPORTED, is_checkpoint, weights_in

_log = logging.getLogger("fbnetv3")
# Patterns of the files that the engine writes into the folder of a run, beside checkpoints
_RUN_FILES = (
    "model.safetensors",
    "model_ema.safetensors",
    "metrics.json",
    "metrics.csv",
    "writers.json",
    "curves.png",
    "profile_*.pt.trace.json",
    "log.txt",
    "config.yaml",
    "config_full.yaml",
    "imports.json",
    "events.out.tfevents.*",
)
# Patterns of the files of a detector's scores, and of the records of a search's candidate
_OTHER_FILES = ("ap_per_class.txt", "predictions_*.png", "scores.json", "result.json")
# Keys of the weights that a training reads
_WEIGHTS_KEYS = ("MODEL.WEIGHTS", "MODEL.TEACHER")


def clear_run(folder: Path) -> None:
    """Removes the files of an earlier run from a folder: those with names that the engine uses.

    Files of the task, such as the pictures of a detector's predictions, stay until the new run
    writes files of the same names.

    Raises:
        WriteError: A file cannot be removed.
    """
    _remove([*_files_of_run(folder), *_leftovers(folder)])


def refuse_own_weights(cfg: CfgNode) -> None:
    """Checks that the weights that a new run starts from are not removed with the earlier run.

    A new run that is killed before its first checkpoint could not start again without them.

    Raises:
        ConfigError: A key of weights names a file of the run in OUTPUT_DIR, or its folder.
        WriteError: OUTPUT_DIR cannot be read.
    """
    removed = _files_of_run(Path(cfg.OUTPUT_DIR).resolve())
    for key in _WEIGHTS_KEYS:
        path = Path(get_value(cfg, key))
        try:
            path = weights_in(path) if get_value(cfg, key) and path.is_dir() else path
        except WeightsFileError:
            continue  # refused where the weights are read
        if {path.resolve(), path.parent.resolve() / path.name} & removed:
            raise ConfigError(
                f"{key} is {get_value(cfg, key)}: --overwrite would remove {path.name} from "
                f"OUTPUT_DIR {cfg.OUTPUT_DIR}; use another OUTPUT_DIR, or move the file out of it "
                f"and set {key} to its new place"
            )


def _files_of_run(folder: Path) -> set[Path]:
    """Returns the files in a folder that have names of the engine.

    Raises:
        WriteError: The folder cannot be read.
    """
    try:
        checkpoints = {folder / name for name in names_in(folder) if is_checkpoint(name)}
    except OSError as error:
        raise WriteError(f"cannot read OUTPUT_DIR {folder}: {error.strerror}") from error
    return checkpoints | {path for pattern in _RUN_FILES for path in folder.glob(pattern)}


def _leftovers(folder: Path) -> set[Path]:
    """Returns the temporary files of atomic_write that killed processes left in a folder."""
    patterns = (*_RUN_FILES, *_OTHER_FILES)
    checkpoints = {p for p in folder.glob(".checkpoint_*.pt.*") if is_checkpoint(p.stem[1:])}
    return checkpoints | {path for name in patterns for path in folder.glob(f".{name}.*")}


def _remove(paths: Iterable[Path]) -> None:
    try:
        for path in paths:
            path.unlink()
    except OSError as error:
        raise WriteError(f"cannot remove {error.filename}: {error.strerror}") from error


def state_to_resume(checkpointer: Checkpointer, resume: bool) -> dict[str, Any] | None:
    """Returns the state of the newest checkpoint; None if the training starts from scratch.

    See :meth:`Checkpointer.newest` for a run whose regular checkpoints are missing or damaged.

    Args:
        checkpointer: Checkpointer of the run's folder.
        resume: Whether to continue an earlier run.

    Raises:
        ConfigError: The folder has an intact checkpoint, and ``resume`` is False.
        CheckpointError: The checkpoint cannot be loaded, or the folder has checkpoints or exported
            weights of a run, but no checkpoint that can be read.
    """
    latest, names = checkpointer.newest(), _names_of_run(checkpointer)
    if latest is None and names:
        raise CheckpointError(
            f"{checkpointer.folder} holds a run ({', '.join(names)}), but no checkpoint that can "
            "be read: restore checkpoint_ITERATION.pt, or access to it, and use --resume; or use "
            "--overwrite to remove the run and start again, or another OUTPUT_DIR"
        )
    if latest is None:
        if resume:
            _log.info("no checkpoint to resume from: training from scratch")
        return None
    if not resume:
        raise ConfigError(
            f"{latest.parent} already holds a run ({latest.name}): use --resume to continue it, "
            "--overwrite to remove it, or another OUTPUT_DIR"
        )
    return checkpointer.load(latest)


def _names_of_run(checkpointer: Checkpointer) -> list[str]:
    """Lists the names of checkpoints, damaged ones included, and of exported weights."""
    return [name for name in checkpointer.names() if name in EXPORTED or is_checkpoint(name)]


def check_same_start(state: dict[str, Any] | None, folder: str) -> None:
    """Checks that all ranks start from the same step; each rank must call this.

    They would not if their machines do not share the folder: rank 0 alone writes checkpoints.

    Args:
        state: State that this rank continues from; None: it starts from scratch.
        folder: OUTPUT_DIR of the run.

    Raises:
        CheckpointError: The ranks have checkpoints of different steps, or some have none.
    """
    starts = gather_numbers(-1 if state is None else state["iteration"])
    if len(set(starts)) == 1:
        return
    each = ", ".join(
        f"{_ranks_text([rank for rank, s in enumerate(starts) if s == start])} "
        f"{'from scratch' if start < 0 else f'after {start} steps'}"
        for start in dict.fromkeys(starts)
    )
    raise CheckpointError(
        f"the ranks would start differently from the checkpoints in OUTPUT_DIR {folder}: {each}; "
        "set OUTPUT_DIR to a folder that all machines share, and give all the same options"
    )


def _ranks_text(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"


def start_folder(folder: Path, cfg: CfgNode, state: dict[str, Any] | None) -> None:
    """Writes the config (config.yaml, config_full.yaml) and hashes of --import code (imports.json).

    Logs how config and code of a resumed run have changed.

    Args:
        folder: OUTPUT_DIR of the run.
        cfg: Config of the run.
        state: State of the checkpoint that the run continues from; None for a new run.

    Raises:
        WriteError: The disk is full, the folder cannot be written to, or one of the files to
            write is a link that leads out of the folder, a pipe or a device.
    """
    refuse_links_out(folder, (*_RUN_FILES, *(path.name for path in _files_of_run(folder))))
    _remove(_leftovers(folder))
    if state is not None:
        for line in _differences(state["config"], cfg.dump()):
            _log.warning("the config differs from that of the resumed run: %s", line)
    changes = "" if state is None else user_code_changes(folder)
    if changes:
        _log.warning("the imported code differs from that of the resumed run: %s", changes)
    write_config(folder / "config.yaml", cfg, get_cfg())
    record_user_code(folder)


def _differences(before: str, now: str) -> list[str]:
    """Returns ``KEY: NEW VALUE`` of each key of ``now`` whose value differs in ``before``.

    Both are configs in yaml. OUTPUT_DIR is left out, since a run may be moved.
    """
    old, new, defaults = (
        dict(iter_keys(parse_mapping(text))) for text in (before, now, get_cfg().dump())
    )
    old = completed(old, defaults)
    return [
        f"{key}: {value}"
        for key, value in sorted(new.items())
        if key != "OUTPUT_DIR" and (key not in old or not same_value(old[key], value))
    ]
