"""Seeds and states of the global random generators."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fbnetv3.errors import FBNetError


def seed_all(seed: int) -> None:
    """Seeds the global random generators of torch, Python and numpy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries draw from it)


def capture_rng() -> dict[str, Any]:
    """Returns the states of the global random generators, as tensors and plain values.

    Of several GPUs, only the generator of the current CUDA device is included.
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (libraries draw from it)
    # Reading the states of all GPUs would create a context on each of them.
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Restores the states of the global random generators.

    Args:
        state: States as :func:`capture_rng` returns them. The state of a GPU is restored on the
            current CUDA device, and skipped on a machine without one.

    Raises:
        FBNetError: A generator's state is missing.
    """
    try:
        torch.set_rng_state(state["torch"])
        python, numpy = state["python"], state["numpy"]
        random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
        keys = numpy["keys"].numpy().astype(np.uint32)
        rest = (numpy["position"], numpy["has_gauss"], numpy["cached"])
        np.random.set_state((numpy["name"], keys, *rest))  # noqa: NPY002
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"][0])
    except KeyError as error:
        raise FBNetError(
            f"the saved random state lacks {error}; resume from an earlier checkpoint"
        ) from error
