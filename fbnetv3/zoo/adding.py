"""Adding exported weights to the package: the copy of their file, and the text of their record."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import yaml

from fbnetv3.arch import Arch
from fbnetv3.io import atomic_write, sha256_of
from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.metadata import check_metadata
from fbnetv3.weights.networks import arch_of, has_several_labels, preprocessing_of
from fbnetv3.weights.packaged import package_dir
from fbnetv3.weights.records import WeightRecord, record_from_dict
from fbnetv3.weights.safetensors_header import sorted_header


def make_entry(
    path: str | os.PathLike[str], *, name: str, tag: str, **fields: Any
) -> dict[str, Any]:
    """Makes the entry of ``own.yaml`` for an exported file.

    Args:
        path: The ``.safetensors`` file that a training exported. Its metadata contain the names of
            the classes, whether images may have several of them, and the preprocessing.
        name, tag: Name of the network, and tag of the weights.
        fields: Further fields of the record that are not None: ``variant``, ``width``, ``depth``,
            ``dataset``, ``metrics`` and ``note``.

    Returns:
        The entry, as yaml would hold it.

    Raises:
        RecordError: The file's name does not end in .safetensors, the file contains no names of
            classes, a field is invalid, or the weights belong to another architecture.
        ArchError: The fields name an unknown architecture, or the one in the file is not valid.
        WeightsFileError: The file cannot be read, or its metadata are invalid.
    """
    if Path(path).suffix != ".safetensors":
        raise RecordError(
            f"{path} is not named .safetensors; add the .safetensors file that training exports"
        )
    _, metadata = read_tensors(path)
    check_metadata(metadata, path)
    classes = metadata.get("classes")
    if not classes:
        raise RecordError(
            f"{path} contains no names of classes; add the .safetensors file that training exports"
        )
    entry: dict[str, Any] = {"name": name, "tag": tag}
    entry |= {k: v for k, v in fields.items() if v is not None} | preprocessing_of(metadata)
    entry |= {"num_classes": len(classes), "classes": list(map(str, classes))}
    entry |= {"several_labels": True} if has_several_labels(metadata) else {}
    entry["path"] = f"{name}.{tag}.safetensors"
    entry |= {"sha256": sha256_of(path), "size": Path(path).stat().st_size}
    _check_arch(_record(entry), arch_of(metadata, None, path), path)
    return entry


def _record(entry: dict[str, Any]) -> WeightRecord:
    defaults = {"layout": "fbnetv3", "licence": "Apache-2.0"}
    return record_from_dict(defaults | entry, "own.yaml")


def _check_arch(record: WeightRecord, saved: Arch | str, path: str | os.PathLike[str]) -> None:
    if not isinstance(saved, Arch) or saved.blocks != record.arch().blocks:
        raise RecordError(
            f"{path} contains weights of {getattr(saved, 'name', saved)}, not of {record.name} "
            f"with variant {record.variant}, width {record.width} and depth {record.depth}; "
            "give the NAME, --variant, --width and --depth of the training"
        )


def half_precision(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of an exported file with tensors of two or more axes as 16-bit floats.

    Vectors (biases, batch norm) keep their precision: they are small, and running variances can
    exceed the range of 16 bits. Loading converts the tensors back.

    Args:
        path: The ``.safetensors`` file.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    converted = {name: t.half() if t.ndim > 1 else t for name, t in tensors.items()}
    return sorted_header(safetensors.torch.save(converted, metadata))


def add_weights(path: str | os.PathLike[str], *, half: bool = False, **fields: Any) -> str:
    """Copies an exported file into the packaged weights, and returns its record as text.

    Args:
        path: The ``.safetensors`` file that a training exported.
        half: Whether to store tensors of two or more axes in 16 bits; see :func:`half_precision`.
        fields: Fields of the record that the file does not contain, ``name`` and ``tag`` among
            them; see :func:`make_entry`.

    Returns:
        A list with the entry, as yaml text for the list ``weights`` in ``own.yaml``.

    Raises:
        FBNetError: :func:`make_entry` refuses the file or a field, or the file cannot be copied.
    """
    entry = make_entry(path, **fields)
    content = half_precision(path) if half else Path(path).read_bytes()
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    with atomic_write(package_dir() / entry["path"]) as temporary:
        temporary.write_bytes(content)
    return yaml.safe_dump([entry], sort_keys=False, width=96, default_flow_style=None)
