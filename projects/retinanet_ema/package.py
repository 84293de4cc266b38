"""Adds a trained detector to the zoo: writes its weights in 16 bits and prints their record.

    python -m projects.retinanet_ema.package RUN/model_ema.safetensors retinanet_fbnetv3_a0.bccd \\
        --dataset bccd_test --note "EMA weights, seed 0, reproduce.sh bccd"

The AP in the record is measured with the 16-bit weights.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save

from fbnetv3.io import atomic_write, sha256_of
from fbnetv3.weights.packaged import package_dir
from fbnetv3.zoo.verification import measure_ap


def write_in_16_bits(source: Path, target: Path) -> None:
    """Copies exported weights, with float tensors of two or more dimensions in 16 bits."""
    with safe_open(source, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    narrow = {
        k: v.half() if v.ndim > 1 and v.is_floating_point() else v for k, v in tensors.items()
    }
    target.write_bytes(save(narrow, metadata))


def package(
    source: Path, name: str, dataset: str, note: str, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Writes a detector into the folder of packaged weights.

    Args:
        source: File of weights exported by training.
        name: Name of the detector in the zoo, ``NAME.TAG``.
        dataset: Data set on which AP is measured.
        note: Description of how the weights were trained.
        overrides: Changes of the detector's config for the evaluation, ``KEY, VALUE, ...``.

    Returns:
        The record of the detector for ``fbnetv3/weights/records/detectors.yaml``.
    """
    target = package_dir() / f"{name}.safetensors"
    with atomic_write(target) as temporary:
        write_in_16_bits(source, temporary)
    output = source.parent / "packaged"
    try:
        scores = measure_ap(target, dataset, output, overrides)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return {
        "name": name,
        "path": target.name,
        "sha256": sha256_of(target),
        "dataset": dataset,
        "metrics": {k: {"value": round(v, 2), "source": "measured"} for k, v in scores.items()},
        "note": note,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Packages a detector and prints its record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="model_ema.safetensors of a run")
    parser.add_argument("name", metavar="NAME.TAG", help="name of the detector in the zoo")
    parser.add_argument("--dataset", required=True, help="data set on which AP is measured")
    parser.add_argument("--note", required=True, help="how the weights were trained")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides for the evaluation")
    args = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)
    entry = package(args.file, args.name, args.dataset, args.note, args.opts)
    print(yaml.safe_dump([entry], sort_keys=False, width=96, default_flow_style=None), end="")


if __name__ == "__main__":
    main()
