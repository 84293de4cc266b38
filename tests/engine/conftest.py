"""A training small enough for a test: 2 thousand weights, 120 images of 8 px."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.data import build_dataset

ROOT = Path(__file__).resolve().parents[2]
ARCH = """\
name: tiny
resolution: 16
num_classes: 10
width_divisor: 8
rows:
  - {stage: 0, op: conv, k: 3, c: 8, n: 1, s: 2, act: hswish}
  - {stage: 1, op: mbconv, k: 3, e: 2, c: 8, n: 2, s: 1, act: hswish, se: hsigmoid}
  - {stage: 2, op: mbconv, k: 3, e: 2, c: 16, n: 2, s: 2, act: hswish}
  - {stage: 3, op: mbpool, e: 2, c: 32, n: 1, s: 1, act: hswish}
"""
RECIPE: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.DROP_RATE": 0.1,
    "MODEL.DROP_PATH_RATE": 0.1,
    "MODEL_EMA.DECAY": 0.9,
    "INPUT.RESIZE": 16,
    "INPUT.TRAIN_CROP": "padded",
    "INPUT.TRAIN_FLIP": False,
    "INPUT.MIXUP": 0.2,
    "DATALOADER.NUM_WORKERS": 0,
    "SOLVER.OPTIMIZER": "sgd",
    "SOLVER.BASE_LR": 0.05,
    "SOLVER.REFERENCE_BATCH": 20,
    "SOLVER.IMS_PER_BATCH": 20,
    "SOLVER.MAX_EPOCHS": 3.0,
    "SOLVER.WARMUP_EPOCHS": 0.5,
    "SOLVER.LR_SCHEDULER_NAME": "cosine",
    "SOLVER.LOG_PERIOD": 2,
}


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Puts back the loggers and signals that a run takes over."""
    loggers = [logging.getLogger(name) for name in ("fbnetv3", "detectron2", "fvcore")]
    before = [(x, list(x.handlers), x.level, x.propagate) for x in loggers]
    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/CLASS/*.png (120 images), test/CLASS/*.png (50) and tiny.yaml."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "tiny.yaml").write_text(ARCH)
    for part, per_class in (("train", 12), ("test", 5)):
        digits = build_dataset(f"digits_{part}")
        for number in range(10):
            indices = [i for i, label in enumerate(digits.targets) if label == number]
            target = folder / part / digits.classes[number]
            target.mkdir(parents=True)
            for index in indices[:per_class]:
                digits.load(index)[0].resize((16, 16)).save(target / f"{index}.png")
    return folder


Options = Callable[..., dict[str, Any]]


@pytest.fixture
def options(material: Path, tmp_path: Path) -> Options:
    """Makes the keys of the tiny training; its folder is ``out`` in tmp_path."""

    def make(**changes: Any) -> dict[str, Any]:
        found = {
            **RECIPE,
            "MODEL.ARCH": str(material / "tiny.yaml"),
            "DATASETS.TRAIN": str(material / "train"),
            "DATASETS.TEST": str(material / "test"),
            "OUTPUT_DIR": str(tmp_path / "out"),
        }
        for key, value in changes.items():
            found[key.replace("__", ".")] = value
        return found

    return make


@pytest.fixture
def tiny(options: Options) -> Callable[..., CfgNode]:
    """Makes the config of the tiny training; keys are given as ``SOLVER__BASE_LR=1.0``."""

    def make(**changes: Any) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_list([x for pair in options(**changes).items() for x in pair])
        cfg.freeze()
        return cfg

    return make


@pytest.fixture
def command(options: Options, tmp_path: Path) -> Callable[..., list[str]]:
    """Makes the command line of the tiny training."""

    def make(
        *flags: str, launcher: tuple[str, ...] = (sys.executable,), **changes: Any
    ) -> list[str]:
        config = tmp_path / "run.yaml"
        config.write_text("VERSION: 2\n")
        values = [str(x) for pair in options(**changes).items() for x in pair]
        script = str(ROOT / "tools" / "train_net.py")
        return [*launcher, script, "--config-file", str(config), *flags, *values]

    return make
