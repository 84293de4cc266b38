"""Writes the configs of the searched family and its peers (Fig. 7: accuracy against MACs).

    python -m projects.cifar10_jointnas.family

The family consists of the winners in ``configs/`` and of scaled versions of the largest one, with
its recipe. The peers are MobileNetV3 and EfficientNet in the form for small images (paper, section
4.3), each with three recipes: that of the largest winner, the plain one of ``transfer.py``, and the
plain one at a quarter of its learning rate, since deep networks may learn better with it in few
steps. Configs are written to ``configs/family/``, and the cost of each network to
``family_cases.csv``.
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
"""Name of the largest winner."""
SCALED = (12e6, 20e6)
"""Numbers of multiply-adds to which the largest winner is scaled."""
PEERS = {
    "mobilenetv3_small_050": "timm/mobilenetv3_small_050",
    "mobilenetv3_small_075": "timm/mobilenetv3_small_075",
    "mobilenetv3_small_100": "timm/mobilenetv3_small_100",
    "mobilenetv3_large_100": "timm/mobilenetv3_large_100",
    "efficientnet_b0": "timm/efficientnet_b0",
}
QUARTER = PLAIN | {"SOLVER.BASE_LR": PLAIN["SOLVER.BASE_LR"] / 4}
"""The plain recipe at a quarter of its learning rate."""
COLUMNS = ("case", "macs", "params")
Row = tuple[str, int, int]


def recipe_of(config: Path) -> dict[str, Any]:
    """Returns the keys of a config except its base and architecture, such as ``SOLVER.BASE_LR``."""
    keys: dict[str, Any] = {}

    def add_keys(prefix: str, tree: dict[str, Any]) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                add_keys(f"{prefix}{key}.", value)
            else:
                keys[prefix + key] = value

    add_keys("", yaml.safe_load(config.read_text(encoding="utf-8")))
    del keys["_BASE_"], keys["MODEL.ARCH"]
    return keys


def library_cost(name: str, side: int = 32) -> tuple[int, int]:
    """Returns the MACs, counted by fvcore, and the parameters of a network of another library.

    Args:
        name: Name of the network, such as ``timm/efficientnet_b0``.
        side: Side of the input images in pixels.
    """
    model = build_model(with_low_resolution(name), num_classes=10).eval()
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    counted = FlopCountAnalysis(model, torch.zeros(1, 3, side, side))
    by_operator = counted.unsupported_ops_warnings(False).by_operator()
    macs = sum(by_operator[kind] for kind in ("conv", "linear", "adaptive_avg_pool2d"))
    return round(macs), sum(p.numel() for p in model.parameters())


def write_scaled(winner: Arch, macs: float, recipe: dict[str, Any], folder: Path) -> Row:
    """Writes the config of a winner scaled to a number of MACs; returns its row of the table."""
    name = name_of("scaled", macs)
    # the costs of small networks change in large steps
    arch = scale_to_macs(winner, macs, tolerance=0.1)
    with atomic_write(folder / f"{name}_arch.yaml") as temporary:
        temporary.write_text(arch.to_yaml(), encoding="utf-8")
    keys = {"MODEL.ARCH": f"{name}_arch.yaml"}
    keys |= dict.fromkeys(("INPUT.RESOLUTION", "INPUT.RESIZE"), arch.resolution)
    write_config(folder / f"{name}.yaml", "../../final.yaml", recipe | keys)
    cost: Cost = count_cost(arch)
    return name, int(cost.macs), int(cost.params)


def write_family(configs: Path) -> list[Row]:
    """Writes all configs to the subfolder ``family``; returns a row of the table for each config.

    Args:
        configs: Folder with the configs of the winners.
    """
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
            arch = {"MODEL.ARCH": network, "MODEL.ARCH_VARIANT": "low_resolution"}
            write_config(folder / f"{case}.yaml", "../../final.yaml", keys | arch)
            rows.append((case, *cost))
    return rows


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--configs", type=Path, default=HERE / "configs", help="folder with the winners' configs"
    )
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
