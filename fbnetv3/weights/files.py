"""Reading weights from files. Nothing here ever runs code that a file holds."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from fbnetv3.weights.errors import WeightsFileError

Tensors = dict[str, torch.Tensor]

# where training frameworks put the tensors inside a saved dict; averaged weights come first
_WRAPPERS = ("ema", "state_dict", "model", "tensors")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the sha256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _kind(path: Path) -> str:
    """Tells the format from the content: names lie, and temporary files have none."""
    with open(path, "rb") as file:
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
    """Decodes safetensors' metadata (strings): each value that is json becomes what it says."""
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
    """Finds the tensors in a saved object; the rest of the dict is the metadata."""
    if not isinstance(saved, Mapping):
        return None
    if _is_tensors(saved):
        return dict(saved), {}
    rest = {str(k): v for k, v in saved.items() if k not in _WRAPPERS}
    for key in _WRAPPERS:
        if (inner := saved.get(key)) is not None and (found := _unwrap(inner)):
            tensors = _as_saved_by(saved.get("model"), found[0]) if key == "ema" else found[0]
            return tensors, found[1] | rest | {"weights": key}
    return None


def _as_saved_by(model: object, averages: Tensors) -> Tensors:
    """Averages may cover more (buffers that are not saved) and be of wider numbers."""
    if not isinstance(model, Mapping) or not _is_tensors(model):
        return averages
    saved: Tensors = dict(model)
    return {key: averages.get(key, value).to(value.dtype) for key, value in saved.items()}


def _without_prefix(tensors: Tensors, prefix: str = "module.") -> Tensors:
    """Drops the prefix that DistributedDataParallel leaves on every name."""
    if not all(key.startswith(prefix) for key in tensors):
        return tensors
    return {key[len(prefix) :]: value for key, value in tensors.items()}


def refuse_packed(path: str | os.PathLike[str]) -> None:
    """Refuses an archive that unpacks to more than it is, before anything of it is unpacked.

    ``torch.save`` stores tensors as they are; one that is packed can fill the memory from a file of
    a thousandth of that.

    Raises:
        WeightsFileError: it does.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > os.path.getsize(path):
        raise WeightsFileError(
            f"{path} unpacks to {unpacked} bytes, more than it has; files of torch.save are not "
            "packed: get it as .safetensors, or as torch.save wrote it"
        )


def _read_torch(path: Path) -> tuple[Tensors, dict[str, Any]]:
    refuse_packed(path)
    # weights_only: the unpickler knows tensors and plain containers and refuses anything else
    saved = torch.load(path, map_location="cpu", weights_only=True)
    found = _unwrap(saved)
    if found is None:
        what = list(saved)[:5] if isinstance(saved, Mapping) else type(saved).__name__
        raise WeightsFileError(
            f"{path} holds no weights: expected a state dict, or one under "
            f"{', '.join(_WRAPPERS)}; found {what}"
        )
    return _without_prefix(found[0]), found[1]


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than tensors, or is not a weights file; nothing in it was run"
    text = str(error).strip().splitlines()
    return f"truncated or not a weights file ({text[0][:120] if text else type(error).__name__})"


def read_tensors(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]]:
    """Reads a .safetensors, .pth or .pt file, whatever its name says.

    Args:
        path: of a state dict, or of a dict that has one under ``ema`` (preferred), ``state_dict``
            or ``model``, such as this project's checkpoints.

    Returns:
        The tensors by name (on the CPU), and the rest: safetensors' metadata or the dict's
        other entries. Where the tensors were under a key, ``"weights"`` names it.

    Raises:
        WeightsFileError: the file is missing, broken, not weights, or a pickle that holds code
            (which is not run).
    """
    path = Path(path)
    try:
        kind = _kind(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsFileError(f"cannot read weights {path}: {reason}; check the path") from error
    if kind in ("empty", "web page"):
        raise WeightsFileError(f"{path} is not a weights file: it is {_a(kind)}; get it again")
    try:
        return _read_safetensors(path) if kind == "safetensors" else _read_torch(path)
    except WeightsFileError:
        raise
    except Exception as error:  # unpicklers raise anything on what is no pickle, struct.error too
        raise WeightsFileError(f"cannot read weights {path}: {_reason(error)}") from error


def _a(kind: str) -> str:
    return kind if kind == "empty" else f"a {kind}"
