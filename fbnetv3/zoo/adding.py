"""Taking weights that training exported into the package: the file and its record."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import yaml

from fbnetv3.arch import Arch
from fbnetv3.io import atomic_write
from fbnetv3.weights.download import package_dir
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.files import read_tensors, sha256_of
from fbnetv3.weights.records import WeightRecord, record_from_dict
from fbnetv3.zoo.classifier import arch_of, preprocessing_of


def entry_of(path: str | os.PathLike[str], **told: Any) -> dict[str, Any]:
    """Makes the entry of ``own.yaml`` for an exported file.

    Args:
        path: ``.safetensors`` that training exported; it tells classes and preprocessing.
        told: what the file does not tell: name, tag, variant, width, depth, dataset, metrics,
            note.

    Raises:
        RecordError: the file has no classes, or is not of the architecture that is told.
        WeightsFileError: it can't be read.
    """
    _, metadata = read_tensors(path)
    classes = metadata.get("classes")
    if not classes or Path(path).suffix != ".safetensors":
        raise RecordError(f"{path} tells no classes; add the .safetensors that training exports")
    entry = {key: value for key, value in told.items() if value is not None}
    entry |= preprocessing_of(metadata)
    entry |= {"num_classes": len(classes), "classes": list(map(str, classes))}
    entry["path"] = f"{entry['name']}.{entry['tag']}.safetensors"
    entry |= {"sha256": sha256_of(path), "size": Path(path).stat().st_size}
    _check_arch(_record(entry), arch_of(metadata, None, path), path)
    return entry


def _record(entry: dict[str, Any]) -> WeightRecord:
    defaults = {"layout": "fbnetv3", "licence": "Apache-2.0"}
    return record_from_dict(defaults | entry, "own.yaml")


def _check_arch(record: WeightRecord, saved: Arch | str, path: str | os.PathLike[str]) -> None:
    if not isinstance(saved, Arch) or saved.blocks != record.arch().blocks:
        raise RecordError(
            f"{path} is not of {record.name} with variant {record.variant}, width {record.width}, "
            f"depth {record.depth}; it says: {getattr(saved, 'name', saved)}"
        )


def halved(path: str | os.PathLike[str]) -> bytes:
    """Returns an exported file's content with weights of two axes and more in 16 bits.

    Vectors (biases, batch norm) stay as they are: they are few, and running variances can be
    beyond what 16 bits hold. Loading widens the weights again.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    small = {name: t.half() if t.ndim > 1 else t for name, t in tensors.items()}
    return safetensors.torch.save(small, metadata)


def add_weights(path: str | os.PathLike[str], *, half: bool = False, **told: Any) -> str:
    """Copies a file into the packaged weights.

    Args:
        path, told: see :func:`entry_of`.
        half: see :func:`halved`.

    Returns:
        The entry as yaml, to be put under ``weights:`` in ``own.yaml``.
    """
    entry = entry_of(path, **told)
    content = halved(path) if half else Path(path).read_bytes()
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    with atomic_write(package_dir() / entry["path"]) as temporary:
        temporary.write_bytes(content)
    return yaml.safe_dump([entry], sort_keys=False, width=96, default_flow_style=None)
