"""The folder of a run: starting, resuming, and removing the files of an earlier run."""

from __future__ import annotations

import logging
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fbnetv3.config import CfgNode, ConfigError, get_cfg, iter_keys
from fbnetv3.config.changes import completed, write_config
from fbnetv3.config.node import same_value
from fbnetv3.engine.checkpoint import BEST, Checkpointer, CheckpointError
from fbnetv3.engine.checkpoint_files import damage
from fbnetv3.engine.distributed import gather_numbers
from fbnetv3.io import WriteError, refuse_links_out
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.user_code import record_user_code, user_code_changes
from fbnetv3.weights.run_folder import EXPORTED

_log = logging.getLogger("fbnetv3")
# Patterns of the files that the engine writes into the folder of a run
_RUN_FILES = (
    "checkpoint_*.pt",
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
# Temporary files of atomic_write, which a killed process leaves behind
_LEFTOVERS = tuple(f".{name}.*" for name in _RUN_FILES)


def clear_run(folder: Path) -> None:
    """Removes the files of an earlier run from a folder: those with names that the engine uses.

    Files of the task, such as the pictures of a detector's predictions, stay until the new run
    writes files of the same names.

    Raises:
        WriteError: A file cannot be removed.
    """
    _remove(folder, (*_RUN_FILES, *_LEFTOVERS))


def _remove(folder: Path, patterns: tuple[str, ...]) -> None:
    try:
        for path in {path for pattern in patterns for path in folder.glob(pattern)}:
            path.unlink()
    except OSError as error:
        raise WriteError(f"cannot remove {error.filename}: {error.strerror}") from error


def state_to_resume(checkpointer: Checkpointer, resume: bool) -> dict[str, Any] | None:
    """Returns the state of the newest checkpoint; None if the training starts from scratch.

    A run that was killed before its first regular checkpoint continues from its best one
    (SOLVER.KEEP_BEST).

    Args:
        checkpointer: Checkpointer of the run's folder.
        resume: Whether to continue an earlier run.

    Raises:
        ConfigError: The folder has an intact checkpoint, and ``resume`` is False.
        CheckpointError: The checkpoint cannot be loaded, or the folder has checkpoints or exported
            weights of a run, but no checkpoint that can be read.
    """
    latest, names = checkpointer.latest(), _names_of_run(checkpointer)
    if names == [BEST] and damage(checkpointer.folder / BEST) is None:
        latest = checkpointer.folder / BEST
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
    return [
        name
        for name in checkpointer.names()
        if name in EXPORTED or fnmatchcase(name, "checkpoint_*.pt")
    ]


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
    refuse_links_out(folder, _RUN_FILES)
    _remove(folder, _LEFTOVERS)
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
