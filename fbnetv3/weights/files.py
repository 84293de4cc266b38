"""Reading weights from untrusted files; code in a file is never run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from fbnetv3.io import MAX_BYTES, open_regular
from fbnetv3.io import sha256_of as sha256_of
from fbnetv3.weights.errors import WeightsFileError

Tensors = dict[str, torch.Tensor]

# keys of a saved dict under which training frameworks put the tensors; averaged weights first
_WRAPPERS = ("ema", "state_dict", "model", "tensors")


def _kind(path: Path) -> str:
    """Detects the format from the content, since file names are unreliable."""
    with open_regular(path, MAX_BYTES["weights"]) as file:
        head = file.read(512)
    if not head:
        return "empty"
    if head.lstrip()[:1] == b"<":
        return "web page"
    # safetensors: 8 bytes little-endian header length, then a json object
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    return "torch"


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
        return tensors, decode_metadata(file.metadata() or {})


def decode_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Decodes the metadata of a safetensors file: values that are JSON are parsed, others kept."""
    decoded: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            decoded[key] = json.loads(value)
        except ValueError:
            decoded[key] = value
    return decoded


def _is_tensors(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and torch.is_tensor(v) for k, v in value.items())
    )


def _unwrap(saved: object) -> tuple[Tensors, dict[str, Any]] | None:
    """Returns the tensors of a saved object and the rest of its dict; None without tensors."""
    if not isinstance(saved, Mapping):
        return None
    if _is_tensors(saved):
        return dict(saved), {}
    rest = {str(k): v for k, v in saved.items() if k not in _WRAPPERS}
    for key in _WRAPPERS:
        if (inner := saved.get(key)) is not None and (unwrapped := _unwrap(inner)):
            tensors, metadata = unwrapped
            if key == "ema":
                tensors = _match_model(saved.get("model"), tensors)
            return tensors, metadata | rest | {"weights": key}
    return None


def _match_model(model: object, averages: Tensors) -> Tensors:
    """Returns averages with the names and dtypes of the saved model, if there is one.

    Averages may include buffers that are not saved, and have a higher precision.
    """
    if not isinstance(model, Mapping) or not _is_tensors(model):
        return averages
    saved: Tensors = dict(model)
    return {key: averages.get(key, value).to(value.dtype) for key, value in saved.items()}


def _without_prefix(tensors: Tensors, prefix: str = "module.") -> Tensors:
    """Removes the prefix that DistributedDataParallel puts before every name."""
    if not all(key.startswith(prefix) for key in tensors):
        return tensors
    return {key[len(prefix) :]: value for key, value in tensors.items()}


def refuse_packed(path: str | os.PathLike[str]) -> None:
    """Refuses a compressed archive before anything in it is unpacked.

    ``torch.save`` does not compress. A small compressed archive can fill the memory.

    Args:
        path: Path of the file, an archive or not.

    Raises:
        WeightsFileError: The file is an archive whose content is larger than the file.
        OSError: The file cannot be read, or is a pipe or device.
    """
    with open_regular(path, MAX_BYTES["weights"]) as file:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > os.path.getsize(path):
        raise WeightsFileError(
            f"{path} unpacks to {unpacked} bytes, more than the file has; torch.save does not "
            "compress: get the weights as .safetensors, or as torch.save wrote them"
        )


def _read_torch(path: Path) -> tuple[Tensors, dict[str, Any]]:
    refuse_packed(path)
    # weights_only: the unpickler accepts only tensors and plain containers
    saved = torch.load(path, map_location="cpu", weights_only=True)
    unwrapped = _unwrap(saved)
    if unwrapped is None:
        content = list(saved)[:5] if isinstance(saved, Mapping) else type(saved).__name__
        raise WeightsFileError(
            f"{path} contains no weights: expected a state dict, or one under "
            f"{', '.join(_WRAPPERS)}; it contains {content}"
        )
    tensors, metadata = unwrapped
    return _without_prefix(tensors), metadata


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it contains more than tensors, or is not a weights file; nothing in it was run"
    text = str(error).strip().splitlines()
    return f"truncated or not a weights file ({text[0][:120] if text else type(error).__name__})"


def read_tensors(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]]:
    """Reads tensors and metadata from a .safetensors, .pth or .pt file with any name.

    Args:
        path: File with a state dict, or with a dict that contains one under ``ema`` (preferred),
            ``state_dict`` or ``model``, such as this project's checkpoints.

    Returns:
        The tensors by name, on the CPU, and the metadata: that of the safetensors file, or the
        other entries of the dict. Its entry ``"weights"`` is the key of the tensors, if any.

    Raises:
        WeightsFileError: The file is missing or damaged, contains no weights, or is a pickle with
            code (which is not run).
    """
    path = Path(path)
    try:
        kind = _kind(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsFileError(f"cannot read weights {path}: {reason}; check the path") from error
    if kind in ("empty", "web page"):
        raise WeightsFileError(f"{path} is not a weights file: it is {_a(kind)}; download it again")
    try:
        return _read_safetensors(path) if kind == "safetensors" else _read_torch(path)
    except WeightsFileError:
        raise
    except Exception as error:  # unpicklers raise any exception on a file that is no pickle
        raise WeightsFileError(f"cannot read weights {path}: {_reason(error)}") from error


def _a(kind: str) -> str:
    return kind if kind == "empty" else f"a {kind}"
