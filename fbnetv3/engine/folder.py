"""The folder of a run: whether it is free, what an earlier run or a kill left in it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fbnetv3.config import CfgNode, ConfigError
from fbnetv3.engine.checkpoint import Checkpointer
from fbnetv3.io import WriteError, atomic_write, refuse_links_out

_log = logging.getLogger("fbnetv3")
_OURS = (
    "checkpoint_*.pt",
    "model.safetensors",
    "model_ema.safetensors",
    "metrics.json",
    "curves.png",
    "log.txt",
    "config.yaml",
    "events.out.tfevents.*",
)


def clear_run(folder: Path, rank: int) -> None:
    """Removes the files of an earlier run, and nothing else; rank 0 does, the others wait.

    Raises:
        WriteError: a file can't be removed.
    """
    if rank == 0:
        _remove(folder, [*_OURS, *_leftovers()])
    if dist.is_initialized():
        dist.barrier()


def _leftovers() -> list[str]:
    """What atomic_write leaves when it is killed."""
    return [f".{name}.*" for name in _OURS]


def _remove(folder: Path, patterns: list[str]) -> None:
    try:
        for path in {path for pattern in patterns for path in folder.glob(pattern)}:
            path.unlink()
    except OSError as error:
        raise WriteError(f"cannot remove {error.filename}: {error.strerror}") from error


def state_to_resume(checkpointer: Checkpointer, resume: bool) -> dict[str, Any] | None:
    """Returns the state to go on from; None begins anew.

    Raises:
        ConfigError: the folder holds a run, and ``resume`` was not asked for.
    """
    latest = checkpointer.latest()
    if latest is None:
        if resume:
            _log.info("no checkpoint to resume from: starting anew")
        return None
    if not resume:
        raise ConfigError(
            f"{latest.parent} holds a run ({latest.name}): go on with it by --resume, start anew "
            "by --overwrite, or choose another OUTPUT_DIR"
        )
    return checkpointer.load(latest)


def start_folder(folder: Path, cfg: CfgNode, state: dict[str, Any] | None) -> None:
    """Saves the config, and says what differs from the one that a resumed run began with.

    Raises:
        WriteError: no space or permission, or a file of ours is a link out of the folder.
    """
    refuse_links_out(folder, _OURS)
    _remove(folder, _leftovers())
    if state is not None:
        for line in _differences(state["config"], cfg.dump()):
            _log.warning("resumed with another value than before: %s", line)
    with atomic_write(folder / "config.yaml") as temporary:
        temporary.write_text(cfg.dump(), encoding="utf-8")


def _differences(before: str, now: str) -> list[str]:
    old, new = (set(text.splitlines()) for text in (before, now))
    return sorted(line.strip() for line in new - old if "OUTPUT_DIR" not in line)
