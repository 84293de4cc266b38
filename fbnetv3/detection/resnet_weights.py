"""Weights of ResNets: detectron2's pickles, read without running what they hold, and names.

The pickles are dicts of numpy arrays. The unpickler below has stand-ins for the functions that make
an array, which take numbers only, and refuses anything else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fbnetv3.weights.errors import WeightsFileError

_KINDS = "fiub"  # floats, whole numbers, truth values: no objects, no records


class _Dtype:
    """Stands in for numpy's dtype while a pickle is read."""

    def __init__(self, name: str) -> None:
        self._found = np.dtype(name)
        if self._found.kind not in _KINDS:
            raise pickle.UnpicklingError(f"it holds an array of {name[:20]!r}, not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Takes the byte order; size and flags follow from the name, whatever the file says."""
        self._found = self._found.newbyteorder(state[1])

    def read(self, data: bytes | str) -> npt.NDArray[Any]:
        """Returns numbers in the byte order of this machine; pickles of Python 2 hold texts."""
        found = np.frombuffer(_latin1(data), self._found)
        return found.astype(self._found.newbyteorder("="))


class _Array:
    """Stands in for an array until its content is read: numpy's own trusts what a file says."""

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Takes version, shape, dtype, order and bytes."""
        _, shape, dtype, is_fortran, data = state
        self.value = dtype.read(data).reshape(shape, order="F" if is_fortran else "C")


def _latin1(data: bytes | str, encoding: str = "latin1") -> bytes:
    """Does what ``_codecs.encode`` does in pickles of arrays."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes as {encoding[:20]!r}, not as latin1")
    return data.encode(encoding) if isinstance(data, str) else data


def _from_buffer(data: bytes, dtype: _Dtype, shape: Any, order: Any) -> npt.NDArray[Any]:
    return dtype.read(data).reshape(shape, order=order)


# what the functions of an array's pickle are replaced by; anything else is refused
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): lambda name, *_: _Dtype(name),
    ("numpy", "ndarray"): lambda: None,  # the kind that _reconstruct is asked for
    ("_codecs", "encode"): lambda data, encoding: _latin1(data, encoding),
    ("__builtin__", "bytes"): lambda: b"",  # of an empty array
    ("collections", "OrderedDict"): lambda pairs=(): dict(pairs),
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS |= {
        (f"{_core}.multiarray", "_reconstruct"): lambda *_: _Array(),
        (f"{_core}.multiarray", "scalar"): lambda dtype, data: dtype.read(data)[0],
        (f"{_core}.numeric", "_frombuffer"): _from_buffer,
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Finds what makes arrays.

        Raises:
            UnpicklingError: It is anything else.
        """
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is never loaded")
        return _STAND_INS[module, name]


def read_pickled_arrays(path: Path) -> dict[str, Tensor]:
    """Reads the weights of a ``.pkl`` of detectron2's model zoo.

    Raises:
        WeightsFileError: It is missing, broken, holds no arrays, or holds code (which is not run).
    """
    try:
        with path.open("rb") as file:
            saved = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise WeightsFileError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # unpicklers raise anything on broken files
        reason = " ".join(str(error).split())[:120]
        raise WeightsFileError(f"cannot read weights {path}: {reason}") from error
    for _ in range(2):  # no more: a dict may hold itself
        if isinstance(saved, Mapping) and (inner := saved.get("model", saved.get("blobs"))):
            saved = inner
    if not isinstance(saved, Mapping):
        raise WeightsFileError(f"{path} holds no weights but a {type(saved).__name__}")
    read = {k: v.value if isinstance(v, _Array) else v for k, v in saved.items()}
    arrays = {k: v for k, v in read.items() if isinstance(k, str) and isinstance(v, np.ndarray)}
    if not arrays:
        raise WeightsFileError(f"{path} holds no arrays")
    momentum = ("_momentum", "lr", "weight_order")  # of Caffe2's training
    return {k: torch.from_numpy(v) for k, v in arrays.items() if not k.endswith(momentum)}


def resnet_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the tensors of a ResNet detectron2's names.

    Args:
        tensors: Named by Caffe2 (``res2_0_branch2a_w``), by torchvision
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
