"""The weights in the folder of a run."""

from __future__ import annotations

import re
from pathlib import Path

from fbnetv3.weights.errors import WeightsFileError

EXPORTED = ("model_ema.safetensors", "model.safetensors")
"""Names of exported weights in the folder of a run, the averaged weights first."""
BEST = "checkpoint_best.pt"
"""Name of the checkpoint with the best score (SOLVER.KEEP_BEST)."""
_REGULAR = re.compile(r"checkpoint_(\d{8,})\.pt")


def iteration_of(name: str) -> int | None:
    """Returns the iteration in the name of a regular checkpoint; None for any other name."""
    match = _REGULAR.fullmatch(name)
    return int(match[1]) if match else None


def is_checkpoint(name: str) -> bool:
    """Returns whether a run gives one of its checkpoints this name.

    A user's own file, such as ``checkpoint_pretrained.pt``, is none of them.
    """
    return name == BEST or iteration_of(name) is not None


def exported_weights(folder: Path) -> Path:
    """Returns the weights that a finished training exported, the averaged ones if there are any.

    Args:
        folder: Folder of the run, OUTPUT_DIR.

    Raises:
        WeightsFileError: The folder has no exported weights.
    """
    for name in EXPORTED:
        if (folder / name).is_file():
            return folder / name
    raise WeightsFileError(
        f"{folder} holds no finished training: it has neither {' nor '.join(EXPORTED)}; give the "
        "OUTPUT_DIR of a finished training, or continue this one with --resume"
    )


def weights_in(folder: Path) -> Path:
    """Returns the weights of a run: exported ones (averaged ones first), or the newest checkpoint.

    Without a regular checkpoint it is the best one, and without that any file ``checkpoint_*.pt``.

    Args:
        folder: Folder of the run, OUTPUT_DIR.

    Raises:
        WeightsFileError: The folder has neither exported weights nor a checkpoint.
    """
    exported = [folder / name for name in EXPORTED if (folder / name).is_file()]
    # Sorting by length puts checkpoint_best.pt before all numbers, which have 8 digits or more.
    checkpoints = sorted(
        folder.glob("checkpoint_*.pt"),
        key=lambda path: (is_checkpoint(path.name), len(path.name), path),
    )
    if not exported and not checkpoints:
        raise WeightsFileError(
            f"{folder} is a directory without weights: it has neither {' nor '.join(EXPORTED)} "
            "nor a checkpoint_*.pt; give the folder of a training, or a file"
        )
    return exported[0] if exported else checkpoints[-1]
