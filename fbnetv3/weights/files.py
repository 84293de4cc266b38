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
from fbnetv3.weights.errors import WeightsFileError
from fbnetv3.weights.run_folder import weights_in
from fbnetv3.weights.wrappers import WRAPPERS, Tensors, unwrap, without_prefixes


def _kind(path: Path) -> str:
    """Returns ``empty``, ``web page``, ``safetensors`` or ``torch``, judged by the content.

    The file name is not used, because its suffix may be wrong.
    """
    with open_regular(path, MAX_BYTES["weights"]) as file:
        head = file.read(512)
    if not head:
        return "empty"
    # safetensors: 8 bytes little-endian header length, then a json object
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    return "web page" if head.lstrip()[:1] == b"<" else "torch"


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
        if not tensors:
            raise WeightsFileError(f"{path} contains no weights: it has no tensors")
        return without_prefixes(tensors), decode_metadata(file.metadata() or {})


def decode_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Decodes the metadata of a safetensors file: values that are JSON are parsed, others kept."""
    decoded: dict[str, Any] = {}
    for key, value in metadata.items():
        try:
            decoded[key] = json.loads(value)
        except ValueError:
            decoded[key] = value
    return decoded


def refuse_compressed(path: str | os.PathLike[str]) -> None:
    """Refuses an archive that is larger when unpacked, before anything in it is unpacked.

    ``torch.save`` does not compress. A small compressed archive can fill the memory.

    Args:
        path: Path of the file, an archive or not.

    Raises:
        WeightsFileError: The file is an archive whose content is larger than the file.
        OSError: The file cannot be read, is larger than weights may be, or is no regular file.
        zipfile.BadZipFile: The file is a damaged archive.
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
    refuse_compressed(path)
    # weights_only: the unpickler accepts only tensors and plain containers
    saved = torch.load(path, map_location="cpu", weights_only=True)
    unwrapped = unwrap(saved)
    if unwrapped is None:
        content = list(saved)[:5] if isinstance(saved, Mapping) else type(saved).__name__
        raise WeightsFileError(
            f"{path} contains no weights: expected a state dict, or one under "
            f"{', '.join(WRAPPERS)}; it contains {content}"
        )
    return unwrapped


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it contains more than tensors, or is not a weights file; nothing in it was run"
    text = str(error).strip().splitlines()
    return f"truncated or not a weights file ({text[0][:120] if text else type(error).__name__})"


def read_tensors(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]]:
    """Reads tensors and metadata from a file of safetensors or ``torch.save``, whatever its name.

    Args:
        path: File with a state dict, or with a dict that contains a state dict, such as the
            checkpoints of this project, timm and torchvision; averaged weights are preferred (see
            :func:`fbnetv3.weights.wrappers.unwrap`). A folder means the weights of the run in it
            (:func:`fbnetv3.weights.run_folder.weights_in`).

    Returns:
        The tensors by name, on the CPU, and the metadata: those of the safetensors file, or the
        other entries of the dict. If the tensors were under a key of a dict, the metadata's entry
        ``"weights"`` is this key.

    Raises:
        WeightsFileError: The file is missing or damaged, contains no weights, is a compressed
            archive, or is a pickle with code (which is not run).
    """
    path = Path(path)
    try:
        path = weights_in(path) if path.is_dir() else path
        kind = _kind(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsFileError(f"cannot read weights {path}: {reason}; check the path") from error
    if kind in ("empty", "web page"):
        raise WeightsFileError(
            f"{path} is not a weights file: it is {_with_article(kind)}; download it again"
        )
    try:
        return _read_safetensors(path) if kind == "safetensors" else _read_torch(path)
    except WeightsFileError:
        raise
    except Exception as error:  # unpickling a file that is no pickle may raise any error
        raise WeightsFileError(f"cannot read weights {path}: {_reason(error)}") from error


def _with_article(kind: str) -> str:
    return kind if kind == "empty" else f"a {kind}"
