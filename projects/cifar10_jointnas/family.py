"""Writes the configs of the family and its peers, for accuracy against multiply-adds (Fig. 7).

    python -m projects.cifar10_jointnas.family

The family consists of the winners in ``configs/`` and of scaled versions of the largest one, with
its recipe. The peers are MobileNetV3 and EfficientNet in the form for small images (paper, section
4.3), each with that recipe, with the plain one of ``transfer.py``, and with a quarter of the plain
learning rate, which suits deep networks better in few steps. Configs are written to
``configs/family/``, and the cost of each network to ``family_cases.csv``.
"""

from __future__ import annotations

import argparse
import csv
import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from fvcore.nn import FlopCountAnalysis

from fbnetv3.arch import Arch, Cost, count_cost, scale_to_macs
from fbnetv3.arch.library_names import with_low_resolution
from fbnetv3.io import atomic_write
from fbnetv3.modeling import build_model
from projects.cifar10_jointnas.cases import BUDGETS, name_of, write_config
from projects.cifar10_jointnas.transfer import PLAIN

HERE = Path(__file__).parent
LARGEST = name_of("joint", BUDGETS[-1])
SCALED = (12e6, 20e6)
PEERS = {
    "mobilenetv3_small_050": "timm/mobilenetv3_small_050",
    "mobilenetv3_small_075": "timm/mobilenetv3_small_075",
    "mobilenetv3_small_100": "timm/mobilenetv3_small_100",
    "mobilenetv3_large_100": "timm/mobilenetv3_large_100",
    "efficientnet_b0": "timm/efficientnet_b0",
}
QUARTER = PLAIN | {"SOLVER.BASE_LR": PLAIN["SOLVER.BASE_LR"] / 4}
COLUMNS = ("case", "macs", "params")
Row = tuple[str, int, int]


def recipe_of(config: Path) -> dict[str, Any]:
    """Returns the recipe keys of a winner's config."""
    keys: dict[str, Any] = {}

    def walk(prefix: str, tree: dict[str, Any]) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            else:
                keys[prefix + key] = value

    walk("", yaml.safe_load(config.read_text(encoding="utf-8")))
    del keys["_BASE_"], keys["MODEL.ARCH"]
    return keys


def library_cost(name: str, side: int = 32) -> tuple[int, int]:
    """Returns MACs and parameters of a network of another library, counted by fvcore."""
    model = build_model(with_low_resolution(name), num_classes=10).eval()
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    counted = FlopCountAnalysis(model, torch.zeros(1, 3, side, side))
    by_operator = counted.unsupported_ops_warnings(False).by_operator()
    macs = sum(by_operator[kind] for kind in ("conv", "linear", "adaptive_avg_pool2d"))
    return round(macs), sum(p.numel() for p in model.parameters())


def write_scaled(winner: Arch, macs: float, recipe: dict[str, Any], folder: Path) -> Row:
    """Writes the config of a winner scaled to a number of multiply-adds; returns its row."""
    name = name_of("scaled", macs)
    arch = scale_to_macs(
        winner, macs, tolerance=0.1
    )  # the costs of small networks change in large steps
    with atomic_write(folder / f"{name}_arch.yaml") as temporary:
        temporary.write_text(arch.to_yaml(), encoding="utf-8")
    keys = {"MODEL.ARCH": f"{name}_arch.yaml"}
    keys |= dict.fromkeys(("INPUT.RESOLUTION", "INPUT.RESIZE"), arch.resolution)
    write_config(folder / f"{name}.yaml", "../../final.yaml", recipe | keys)
    cost: Cost = count_cost(arch)
    return name, int(cost.macs), int(cost.params)


def write_family(configs: Path) -> list[Row]:
    """Writes all configs to ``configs/family/``; returns a row for each."""
    folder = configs / "family"
    folder.mkdir(exist_ok=True)
    recipe = recipe_of(configs / f"{LARGEST}.yaml")
    winner = Arch.from_yaml((configs / f"{LARGEST}_arch.yaml").read_text(encoding="utf-8"))
    winner = winner.replace(num_classes=10)
    rows = [write_scaled(winner, macs, recipe, folder) for macs in SCALED]
    for name, network in PEERS.items():
        cost = library_cost(network)
        for kind, keys in (("searched", recipe), ("plain", PLAIN), ("quarter", QUARTER)):
            case = f"{name}_{kind}"
            own = {"MODEL.ARCH": network, "MODEL.ARCH_VARIANT": "low_resolution"}
            write_config(folder / f"{case}.yaml", "../../final.yaml", keys | own)
            rows.append((case, *cost))
    return rows


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--configs", type=Path, default=HERE / "configs", help="folder to write")
    parser.add_argument(
        "--csv", type=Path, default=HERE / "family_cases.csv", help="table to write"
    )
    args = parser.parse_args()
    rows = write_family(args.configs)
    with atomic_write(args.csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
