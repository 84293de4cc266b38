"""Scales hand-made networks to a latency on this machine, and writes configs that train them.

    python -m projects.latency_space.hand_made output/latency_space --milliseconds 1.8

Each network gets its form for small images, and is scaled to every width, depth and resolution of a
grid. Of the scaled networks whose measured latency is within the bound, the one with the most
multiply-adds is trained. The grid has smaller depths, since each layer takes some time: at their
full depth, deep networks may exceed the bound at every width.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from fbnetv3.arch import Arch, count_cost, get_arch
from fbnetv3.arch.scaling import low_resolution, scale
from fbnetv3.benchmark.blocks import build_timed_network, measure_networks
from fbnetv3.io import atomic_write
from fbnetv3.resources import model_zoo_path

NAMES = ("mobilenetv4_conv_small", "mobilenetv3_large_100", "efficientnet_b0")
WIDTHS = (0.125, 0.25, 0.375, 0.5)  # factors of the channels
DEPTHS = (0.25, 0.5, 1.0)  # factors of the layers
SIDES = (24, 32)  # pixels
LEARNING_RATES = (0.1, 0.3)
EPOCHS, TRAIN_LIMIT = 4.0, 8_000
"""Epochs and images of the full trainings, as in SEARCH.FINAL of the searches."""


def candidates(name: str) -> list[Arch]:
    """Returns a hand-made network at each width, depth and resolution of the grid."""
    grid = itertools.product(WIDTHS, DEPTHS, SIDES)
    return [
        scale(low_resolution(get_arch(name), side), width, depth).replace(num_classes=10)
        for width, depth, side in grid
    ]


def latencies(archs: Sequence[Arch], rounds: int) -> list[float]:
    """Returns the latency of each network in milliseconds of CPU time, in alternating rounds."""
    clock = time.thread_time
    _, whole_ms = measure_networks(
        archs[-1:], archs, rounds, clock,
        on_network_done=lambda: None, build=build_timed_network,
    )  # fmt: skip
    return whole_ms


def largest_within(archs: Sequence[Arch], ms: Sequence[float], bound: float) -> Arch:
    """Returns the network with the most multiply-adds of those within the bound.

    If none is within the bound, the fastest network is returned.
    """
    fast = [arch for arch, value in zip(archs, ms, strict=True) if value <= bound]
    if fast:
        return max(fast, key=lambda arch: count_cost(arch).macs)
    return archs[min(range(len(archs)), key=ms.__getitem__)]


def write_configs(arch: Arch, name: str, folder: Path) -> None:
    """Writes a config of the network for each learning rate, and its architecture."""
    archs = folder / "archs"
    archs.mkdir(parents=True, exist_ok=True)
    with atomic_write(archs / f"{name}.yaml") as temporary:
        temporary.write_text(arch.to_yaml(), encoding="utf-8")
    for lr in LEARNING_RATES:
        config = {
            "_BASE_": str(model_zoo_path() / "recipes" / "cifar10_seconds.yaml"),
            "MODEL": {"ARCH": str((archs / f"{name}.yaml").resolve())},
            "INPUT": {"RESOLUTION": arch.resolution, "RESIZE": arch.resolution},
            "DATA": {"TRAIN_LIMIT": TRAIN_LIMIT},
            "SOLVER": {"BASE_LR": lr, "MAX_EPOCHS": EPOCHS},
            "TEST": {"EVAL_EPOCHS": EPOCHS},
        }
        with atomic_write(folder / f"{name}_lr{lr:g}.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Measures all networks of the grid, and writes configs of the chosen ones that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder for configs/")
    parser.add_argument("--milliseconds", type=float, required=True, help="bound of the latency")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of the measurement")
    args = parser.parse_args(argv)
    for name in NAMES:
        if (args.folder / "configs" / f"{name}_lr{LEARNING_RATES[-1]:g}.yaml").is_file():
            continue
        archs = candidates(name)
        ms = latencies(archs, args.rounds)
        chosen = largest_within(archs, ms, args.milliseconds)
        print(f"{name}: {chosen.name}, {ms[archs.index(chosen)]:.2f} ms")
        write_configs(chosen, name, args.folder / "configs")


if __name__ == "__main__":
    main()
