"""Runs the commands of docs/paper.md to their end, on a made-up ImageNet of a few classes.

    make paper-rehearsal
    python -m projects.paper.rehearsal FOLDER

The commands are read from the page. Each runs as it is printed, except for what this file
overrides: images have an eighth of the side, every number of multiply-adds is divided by 40 (not
64, since maps of odd sizes are rounded up), and trainings last two epochs, final trainings one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "paper.md"
SPACE = ROOT / "fbnetv3" / "search" / "fbnet" / "spaces" / "fbnetv3_paper.yaml"
SMALLER, FEWER = 8, 40
"""Divisors of the resolution and of every number of multiply-adds.

0.5 % of the space of small images has 400M / 40 to 450M / 40 multiply-adds. Of the paper's space,
0.3 % has 400M to 450M.
"""
CLASSES, TRAIN_IMAGES, VAL_IMAGES, SIDE = 4, 28, 16, 40
"""Number of classes, numbers of images of each class, and side of an image in pixels."""
AT_ONCE = 2
"""Number of scalings, and of trainings, that run at the same time."""
_TRAINING = {
    "SOLVER.MAX_EPOCHS": 2.0,
    "SOLVER.WARMUP_EPOCHS": 0.25,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.REFERENCE_BATCH": 64,
    "MODEL_EMA.WARMUP": True,
    "MODEL.BN_MOMENTUM": 0.5,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.BATCH_SIZE": 48,
}
_SEARCH = {
    "SEARCH.CONSTRAINTS": [f"{4e8 / FEWER:g} <= macs <= {8e8 / FEWER:g}"],
    "SEARCH.POOL_SIZE": 400,
    "SEARCH.BATCH_SIZE": 3,
    "SEARCH.ITERATIONS": 2,
    "SEARCH.WORKERS": 2,
    "SEARCH.CLASSES": 3,
    "SEARCH.FINAL_CLASSES": CLASSES,
    "SEARCH.HOLD_OUT": 24,
    "SEARCH.EVOLUTION.BEST": 8,
    "SEARCH.EVOLUTION.RANDOM": 8,
    "SEARCH.EVOLUTION.CHILDREN": 4,
    "SEARCH.EVOLUTION.TOP": 8,
    "SEARCH.FINAL": [
        *("SOLVER.MAX_EPOCHS", 1.0, "SOLVER.EPOCH_DECAY", 0.9875, "SOLVER.IMS_PER_BATCH", 4)
    ],
}


def commands_of(page: str) -> list[list[str]]:
    """Returns the commands in the blocks of shell code of a page, as lists of arguments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def rehearsed(command: Sequence[str], space: Path) -> list[str]:
    """Returns a command of the page with the rehearsal's overrides.

    Args:
        command: Arguments of the command as printed.
        space: Yaml of the search space for small images.
    """
    arguments = [_with_fewer_macs(text) for text in command]
    for i, text in enumerate(arguments):
        if text == "--num-processes":
            arguments[i + 1] = "1"
        elif text == "--macs":
            for k in range(i + 1, len(arguments)):
                if arguments[k].startswith("-"):
                    break
                arguments[k] = f"{float(arguments[k]) / FEWER:.10g}"
    if "--config-file" in arguments and "tools/jointnas_search.py" in arguments:
        keys = {**_TRAINING, "SEARCH.SPACE": space, **_SEARCH}
        arguments += [item for key, value in keys.items() for item in (key, _literal(value))]
    return [sys.executable, *arguments[1:]]


def _literal(value: object) -> str:
    return str(value) if not isinstance(value, list) else repr(value)


def _with_fewer_macs(text: str) -> str:
    """Returns a text in which the name of a winner has the rehearsal's budget."""
    return re.sub(r"best_macs_(\d+)M", lambda found: f"best_macs_{int(found[1]) / FEWER:g}M", text)


def make_space(path: Path) -> None:
    """Writes the paper's space with its resolutions divided by ``SMALLER``."""
    text = SPACE.read_text(encoding="utf-8")
    printed = "resolution: {range: [224, 272, 8]}"
    small = f"resolution: {{range: [{224 // SMALLER}, {272 // SMALLER}, {8 // SMALLER}]}}"
    if text.count(printed) != 1:
        raise ValueError(f"{SPACE} has no line {printed!r}")
    path.write_text(text.replace(printed, small), encoding="utf-8")


def make_imagenet(folder: Path, seed: int = 0) -> None:
    """Writes a tree like ImageNet's, whose classes differ in colour and in the width of stripes.

    Args:
        folder: Folder for ``train/`` and ``val/``, each with one folder of JPEGs per class.
        seed: Random seed of the images.
    """
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (CLASSES, 2, 3))
    across = np.arange(SIDE)
    for part, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
        for label in range(CLASSES):
            wnid = folder / part / f"n{label:08d}"
            wnid.mkdir(parents=True)
            for i in range(count):
                is_second = ((across + random.integers(SIDE)) // (2 + 2 * label)) % 2
                pixels = colours[label][is_second][None].repeat(SIDE, 0)
                noisy = pixels + random.normal(0, 20, pixels.shape)
                image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                image.save(wnid / f"{wnid.name}_{i}.JPEG", quality=90)


def rehearse(folder: Path) -> str:
    """Runs the commands of the page in a folder and returns what the last one prints.

    Scalings that follow each other run ``AT_ONCE`` at a time, and so do trainings.

    Args:
        folder: New or empty folder.

    Raises:
        RuntimeError: A command failed; the message has its command line and its output.
    """
    make_imagenet(folder / "data" / "imagenet")
    space = folder / "space.yaml"
    make_space(space)
    for name in ("tools", "model_zoo"):
        (folder / name).symlink_to(ROOT / name)
    outputs = []
    commands = [rehearsed(c, space) for c in commands_of(PAGE.read_text(encoding="utf-8"))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while commands:
            group = list(itertools.takewhile(partial(_is_like, commands[0]), commands))
            outputs = list(pool.map(lambda command: _run(command, folder), group))
            commands = commands[len(group) :]
    return outputs[-1]


def _is_like(first: Sequence[str], command: Sequence[str]) -> bool:
    """Returns whether two commands may run together: the same one, two scalings, two trainings."""
    if command is first:
        return True
    is_training = all("--resume" in c for c in (first, command))
    is_scaling = all("scale" in c for c in (first, command))
    return is_training or is_scaling


def _run(command: Sequence[str], folder: Path) -> str:
    start = time.monotonic()
    environment = {
        **os.environ,
        "FBNETV3_DATA": str(folder / "data"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    status, stdout, stderr = execute(command, folder, environment)
    shown = shlex.join(["python", *command[1:]])
    print(f"[{time.monotonic() - start:5.1f} s] {shown}", flush=True)
    if status:
        raise RuntimeError(f"{shown} failed:\n{stdout[-3000:]}\n{stderr[-3000:]}")
    return stdout


def execute(
    command: Sequence[str], folder: Path, environment: dict[str, str]
) -> tuple[int, str, str]:
    """Runs a command in a folder; returns its exit status, standard output and standard error."""
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


def main(argv: Sequence[str] | None = None) -> None:
    """Rehearses the page in a folder, and prints the table."""
    parser = argparse.ArgumentParser(description="Run docs/paper.md on a made-up ImageNet.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new or empty folder")
    folder = parser.parse_args(argv).folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    print(rehearse(folder))


if __name__ == "__main__":
    main()
