"""Writes configs of the searched and the plain recipe for several networks (Table 2).

    python -m projects.cifar10_jointnas.transfer

Reads ``autotrain/``, the log of the recipe search, and writes NETWORK_searched.yaml and
NETWORK_plain.yaml to ``configs/transfer/``, for the network of the search and four others.
Stochastic depth is left out for networks that do not support it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fbnetv3.config import recipe_from_config, recipe_to_config
from projects.cifar10_jointnas.cases import write_config
from projects.cifar10_jointnas.runs import open_log

HERE = Path(__file__).parent
# All are in the form for small images (paper, section 4.3), and narrow for short trainings.
NETWORKS: dict[str, dict[str, Any]] = {
    "fbnetv3": {"MODEL.ARCH": "fbnetv3_a0", "MODEL.WIDTH": 0.5, "MODEL.DEPTH": 0.6},
    "fbnet": {"MODEL.ARCH": "fbnet_a", "MODEL.WIDTH": 0.5},
    "resnet18": {"MODEL.ARCH": "timm/resnet18?channels=(16,32,64,128)"},
    "mobilenetv3": {"MODEL.ARCH": "timm/mobilenetv3_small_100"},
    "densenet": {"MODEL.ARCH": "timm/densenet121?growth_rate=8&block_config=(6,6,6,6)"},
}
SEARCHED_ON = "fbnetv3"  # network of the recipe search
NO_DROP_PATH = ("densenet",)  # networks without stochastic depth
# The recipe of the ResNets on CIFAR-10 (arXiv 1512.03385, section 4.2): SGD, 0.1 for 128 images.
# EMA does not change a training, so the raw weights have the scores of a training without EMA.
PLAIN: dict[str, Any] = {
    "SOLVER.OPTIMIZER": "sgd",
    "SOLVER.BASE_LR": 0.05,
    "SOLVER.REFERENCE_BATCH": 64,
    "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.LABEL_SMOOTHING": 0.0,
}


def searched(log: Path) -> dict[str, Any]:
    """Returns the config keys of the best recipe of a search, without those of its base config.

    Args:
        log: Folder of the log of the search.
    """
    run = open_log(log)
    best = run.search.result().best
    base = recipe_from_config(run.cfg)
    plain = recipe_to_config(base)
    keys = recipe_to_config(run.space.recipe(best.config, base))
    return {key: value for key, value in keys.items() if value != plain[key]}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", type=Path, default=HERE / "autotrain", help="log of the search")
    parser.add_argument(
        "--configs", type=Path, default=HERE / "configs" / "transfer", help="folder to write"
    )
    args = parser.parse_args()
    args.configs.mkdir(parents=True, exist_ok=True)
    for recipe, keys in (("searched", searched(args.log)), ("plain", PLAIN)):
        for name, network in NETWORKS.items():
            merged = {**keys, **network, "MODEL.ARCH_VARIANT": "low_resolution"}
            if name in NO_DROP_PATH:
                merged.pop("MODEL.DROP_PATH_RATE", None)
            write_config(args.configs / f"{name}_{recipe}.yaml", "../../final.yaml", merged)


if __name__ == "__main__":
    main()
