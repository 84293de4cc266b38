"""Weights of ResNets: safe reading of detectron2's pickles, and conversion of tensor names.

The pickles are dictionaries of numpy arrays. The unpickler below replaces the functions that make
arrays by restricted ones, which accept only numbers, and refuses all other functions and classes,
so that no code of a pickle is run.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from torch import Tensor

from fbnetv3.io import MAX_BYTES, open_regular
from fbnetv3.weights.errors import WeightsFileError

_TORCHVISION_NAME = "layer1.0.conv1.weight"  # in all of torchvision's ResNets
_KINDS = "fiub"  # numpy's kinds of floats, integers and booleans, but no objects or records


class _Dtype:
    """A restricted replacement of numpy's dtype in a pickle, for numbers only."""

    def __init__(self, name: str) -> None:
        self._dtype = np.dtype(name)
        if self._dtype.kind not in _KINDS:
            raise pickle.UnpicklingError(f"it holds an array of {name[:20]!r} instead of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Sets the byte order; size and flags follow from the name, whatever the file says."""
        self._dtype = self._dtype.newbyteorder(state[1])

    def read(self, data: bytes | str) -> npt.NDArray[Any]:
        """Returns the numbers in this machine's byte order; Python 2 pickled bytes as strings."""
        numbers = np.frombuffer(_latin1(data), self._dtype)
        return numbers.astype(self._dtype.newbyteorder("="))


class _Array:
    """A restricted replacement of numpy's array, whose own unpickling would trust the file."""

    value: npt.NDArray[Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Reads the array from version, shape, dtype, order and bytes."""
        _, shape, dtype, is_fortran, data = state
        self.value = dtype.read(data).reshape(shape, order="F" if is_fortran else "C")


def _latin1(data: bytes | str, encoding: str = "latin1") -> bytes:
    """Returns bytes, like ``_codecs.encode`` in pickles of arrays."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding[:20]!r} instead of latin1")
    return data.encode(encoding) if isinstance(data, str) else data


def _from_buffer(data: bytes, dtype: _Dtype, shape: Any, order: Any) -> npt.NDArray[Any]:
    return dtype.read(data).reshape(shape, order=order)


# Replacements of the functions and classes in pickles of arrays; ``find_class`` refuses others.
_REPLACEMENTS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): lambda name, *_: _Dtype(name),
    ("numpy", "ndarray"): lambda: None,  # the first argument of _reconstruct
    ("_codecs", "encode"): lambda data, encoding: _latin1(data, encoding),
    ("__builtin__", "bytes"): lambda: b"",  # the content of an empty array
    ("collections", "OrderedDict"): lambda pairs=(): dict(pairs),
}
for _core in ("numpy.core", "numpy._core"):
    _REPLACEMENTS |= {
        (f"{_core}.multiarray", "_reconstruct"): lambda *_: _Array(),
        (f"{_core}.multiarray", "scalar"): lambda dtype, data: dtype.read(data)[0],
        (f"{_core}.numeric", "_frombuffer"): _from_buffer,
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of a function or class of the pickles.

        Raises:
            UnpicklingError: The function or class is not one of ``_REPLACEMENTS``.
        """
        if (module, name) not in _REPLACEMENTS:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is never loaded")
        return _REPLACEMENTS[module, name]


def read_pickled_arrays(path: Path) -> tuple[dict[str, Tensor], str]:
    """Returns the weights in a ``.pkl`` file of detectron2's model zoo, and their author.

    The author is the entry ``__author__``, such as ``torchvision``; "" if the file has none.

    Raises:
        WeightsFileError: The file cannot be read, holds no arrays, or holds code (which is not
            run).
    """
    try:
        with open_regular(path, MAX_BYTES["weights"]) as file:
            saved = _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise WeightsFileError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # unpicklers raise errors of any kind on damaged files
        reason = " ".join(str(error).split())[:120]
        raise WeightsFileError(f"cannot read weights {path}: {reason}") from error
    author = saved.get("__author__") if isinstance(saved, Mapping) else ""
    for _ in range(2):  # two levels at most, since a dictionary may contain itself
        if isinstance(saved, Mapping) and (inner := saved.get("model", saved.get("blobs"))):
            saved = inner
    if not isinstance(saved, Mapping):
        raise WeightsFileError(f"{path} holds a {type(saved).__name__} instead of weights")
    values = {k: v.value if isinstance(v, _Array) else v for k, v in saved.items()}
    arrays = {k: v for k, v in values.items() if isinstance(k, str) and isinstance(v, np.ndarray)}
    if not arrays:
        raise WeightsFileError(f"{path} holds no arrays")
    no_weights = ("_momentum", "lr", "weight_order")  # endings of what Caffe2 saves beside weights
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items() if not k.endswith(no_weights)}
    return tensors, author if isinstance(author, str) else ""


def is_torchvision(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bool:
    """Returns whether weights are those of a ResNet of torchvision.

    Args:
        tensors: Tensors of a ResNet by name.
        metadata: Metadata of the file. Files that detectron2's converter has made of torchvision's
            weights have detectron2's names, and torchvision as their ``author``.
    """
    return _TORCHVISION_NAME in tensors or metadata.get("author") == "torchvision"


def resnet_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a ResNet under the names of detectron2.

    Args:
        tensors: Tensors with the names of Caffe2 (``res2_0_branch2a_w``), of torchvision
            (``layer1.0.conv1.weight``), or of detectron2.
    """
    if _TORCHVISION_NAME in tensors:
        return {_from_torchvision(key): value for key, value in tensors.items()}
    return dict(zip(convert_basic_c2_names(list(tensors)), tensors.values(), strict=True))


def _from_torchvision(key: str) -> str:
    if key.startswith("fc."):
        return f"linear.{key[3:]}"
    key = key if key.startswith("layer") else f"stem.{key}"
    for number in range(1, 5):
        key = key.replace(f"layer{number}", f"res{number + 1}")
        key = key.replace(f".bn{number}.", f".conv{number}.norm.")
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
