"""Trains a torch module on a torch Dataset, stops, and resumes bit for bit.

python projects/own_parts/example.py output/own_parts
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import fbnetv3
from fbnetv3.engine.result import TrainingResult


class Stripes(Dataset[tuple[Tensor, int]]):
    """Noisy pictures of stripes: vertical, horizontal and diagonal."""

    classes = ["vertical", "horizontal", "diagonal"]

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        label = i % 3
        rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
        phase = (columns, rows, rows + columns)[label]
        generator = torch.Generator().manual_seed(1000 * self.seed + i)
        noise = torch.rand(3, 16, 16, generator=generator)
        shift = int(torch.randint(4, ()))  # a random augmentation, drawn anew in each epoch
        return 0.5 * noise + 0.5 * ((phase + shift) % 4 < 2), label


class Net(nn.Sequential):
    """A small network of convolutions."""

    def __init__(self, num_classes: int) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, 8), (8, 16)):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


def train(folder: Path, resume: bool = False, stop_after: float | None = None) -> TrainingResult:
    """Trains for four epochs, or stops after ``stop_after`` epochs of the four."""
    cfg = fbnetv3.get_cfg()
    cfg.INPUT.RESOLUTION, cfg.INPUT.TRAIN_CROP, cfg.INPUT.TRAIN_FLIP = 16, "padded", False
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = "sgd", 0.1
    cfg.SOLVER.IMS_PER_BATCH = cfg.SOLVER.REFERENCE_BATCH = 32
    cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.WARMUP_EPOCHS = 4.0, 0.5
    cfg.MODEL_EMA.DECAY, cfg.DATALOADER.NUM_WORKERS = 0.9, 0
    cfg.WRITERS, cfg.OUTPUT_DIR = ["csv"], str(folder)
    torch.manual_seed(0)  # the weights of the network
    net, train_set, test_set = Net(3), Stripes(192, seed=1), Stripes(96, seed=2)
    return fbnetv3.train(cfg, net, train_set, test_set, resume=resume, stop_after=stop_after)


def main(folder: Path) -> None:
    """Trains once without and once with an interruption, and compares the weights."""
    whole = train(folder / "whole")
    train(folder / "interrupted", stop_after=2)
    resumed = train(folder / "interrupted", resume=True)
    same = whole.weights.read_bytes() == resumed.weights.read_bytes()
    print(f"top-1 {whole.scores['val/top1_ema']:.1f}%; the weights are the same: {same}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "output/own_parts"))
