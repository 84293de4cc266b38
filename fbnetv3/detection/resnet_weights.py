"""Weights of ResNets: detectron2's pickles, read without running what they hold, and names.

The pickles are dicts of numpy arrays. The unpickler below knows the functions that make an array,
and refuses anything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbnetv3.zoo import WeightsFileError

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Finds what makes arrays.

        Raises:
            UnpicklingError: it is anything else.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is never loaded")
        return super().find_class(module, name)


def read_pickled_arrays(path: Path) -> dict[str, Tensor]:
    """Reads the weights of a ``.pkl`` of detectron2's model zoo.

    Raises:
        WeightsFileError: it is missing, broken, holds no arrays, or holds code (which is not run).
    """
    try:
        with path.open("rb") as file:
            saved = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise WeightsFileError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # unpicklers raise anything on broken files
        reason = " ".join(str(error).split())[:120]
        raise WeightsFileError(f"cannot read weights {path}: {reason}") from error
    while isinstance(saved, Mapping) and (inner := saved.get("model", saved.get("blobs"))):
        saved = inner
    if not isinstance(saved, Mapping):
        raise WeightsFileError(f"{path} holds no weights but a {type(saved).__name__}")
    arrays = {k: v for k, v in saved.items() if isinstance(k, str) and isinstance(v, np.ndarray)}
    if not arrays:
        raise WeightsFileError(f"{path} holds no arrays")
    momentum = ("_momentum", "lr", "weight_order")  # of Caffe2's training
    return {k: torch.from_numpy(v) for k, v in arrays.items() if not k.endswith(momentum)}


def resnet_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of a ResNet detectron2's names.

    Args:
        tensors: named by Caffe2 (``res2_0_branch2a_w``), by torchvision
            (``layer1.0.conv1.weight``), or by detectron2.
    """
    if "layer1.0.conv1.weight" in tensors:
        return {_from_torchvision(key): value for key, value in tensors.items()}
    from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names

    old = list(tensors)
    return dict(zip(convert_basic_c2_names(old), (tensors[key] for key in old), strict=True))


def _from_torchvision(key: str) -> str:
    if key.startswith("fc."):
        return f"linear.{key[3:]}"
    key = key if key.startswith("layer") else f"stem.{key}"
    for number in range(1, 5):
        key = key.replace(f"layer{number}", f"res{number + 1}")
        key = key.replace(f".bn{number}.", f".conv{number}.norm.")
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
