"""The page of all config keys, written from the key tables of the code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from fbnetv3.config import get_cfg, get_value
from fbnetv3.config.effects import tasks_that_read
from fbnetv3.config.keys import KEYS
from fbnetv3.config.ranges import RANGES
from fbnetv3.config.recipes import RECIPE_KEYS
from fbnetv3.recipe import CHOICES
from fbnetv3.recipe import RANGES as RECIPE_RANGES
from fbnetv3.search.fbnet.keys import KEYS as SEARCH_KEYS

_HEAD = """# Config keys

Written from the tables of the code when the site is built. A yaml file of `--config-file` states
what differs from the defaults, and `KEY VALUE` pairs of the command line override it
([training](../training.md), [search](../search.md)). "Read by" names the task, classifiers or
detectors, that reads a key. Keys of detectron2 that are not listed here keep detectron2's meaning
and default.
"""
_COLUMNS = "| key | default | allowed | read by | meaning |\n|---|---|---|---|---|"
_OF_DETECTRON2 = {
    "SOLVER.BASE_LR": "peak learning rate for SOLVER.REFERENCE_BATCH images per step",
    "SOLVER.IMS_PER_BATCH": "images per step over all processes",
    "SOLVER.MOMENTUM": "momentum of the optimizer",
    "SOLVER.NESTEROV": "Nesterov's momentum; None: True for classifiers, False for detectors",
    "SOLVER.GAMMA": "factor of the learning rate at each of SOLVER.STEPS",
    "SOLVER.STEPS": "epochs (iterations where SOLVER.MAX_EPOCHS is 0) of the schedule `steps`",
    "SOLVER.MAX_ITER": "length of the training in iterations where SOLVER.MAX_EPOCHS is 0",
    "SOLVER.LR_SCHEDULER_NAME": "schedule of the learning rate",
    "SOLVER.WARMUP_FACTOR": "learning rate of the first step relative to the peak",
    "SOLVER.WEIGHT_DECAY": "weight decay of weights",
    "SOLVER.WEIGHT_DECAY_NORM": "weight decay of batch norm's parameters",
    "SOLVER.WEIGHT_DECAY_BIAS": (
        "weight decay of biases; None: that of norms for classifiers, of weights for detectors"
    ),
    "SOLVER.AMP.ENABLED": "train in mixed precision",
    "SOLVER.CLIP_GRADIENTS.ENABLED": "clip gradients",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "how gradients are clipped; classifiers: norm",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": "largest 2-norm of the gradients",
    "DATASETS.TRAIN": "data sets of the training: names, folders, archives, hf://NAME?split=train",
    "DATASETS.TEST": "data sets of the evaluations",
    "DATALOADER.NUM_WORKERS": "worker processes of each loader",
    "MODEL.WEIGHTS": "weights from which the training starts: zoo://NAME, a file, or an address",
    "MODEL.META_ARCHITECTURE": "ImageClassifier, RetinaNet, FCOS or GeneralizedRCNN",
    "MODEL.DEVICE": "auto, cpu, cuda or cuda:N",
    "OUTPUT_DIR": "run folder",
    "SEED": "seed of all random numbers",
}
"""Meaning of the keys of detectron2 that the page lists."""


def page() -> str:
    """Returns the Markdown of the page: a table for each group of keys."""
    training = {key: meaning for key, (_, meaning) in KEYS.items()}
    sections = _sections({**_OF_DETECTRON2, **training})
    search = {f"SEARCH.{key}": (value, meaning) for key, (value, meaning) in SEARCH_KEYS.items()}
    rows = [f"| `{key}` | {_code(value)} | {_escape(meaning)} |" for key, (value, meaning) in
            search.items()]  # fmt: skip
    head = ["## SEARCH", "", "Keys of a search, in addition to those of a training.", ""]
    table = ["| key | default | meaning |", "|---|---|---|", *rows]
    return "\n".join([_HEAD, *sections, *head, *table, ""])


def _sections(meanings: Mapping[str, str]) -> Iterable[str]:
    cfg = get_cfg()
    allowed = _allowed()
    for group, keys in groupby(sorted(meanings), lambda key: key.split(".")[0]):
        yield f"## {group}\n\n{_COLUMNS}"
        for key in keys:
            tasks = tasks_that_read(key)
            readers = "both" if len(tasks) > 1 else "".join(tasks)
            cells = (allowed.get(key, ""), readers, _escape(meanings[key]))
            yield f"| `{key}` | {_code(get_value(cfg, key))} | {' | '.join(cells)} |"
        yield ""


def _allowed() -> dict[str, str]:
    ranges = {
        key: f"≥ {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        for key, (low, high) in RANGES.items()
    }
    ranges |= {RECIPE_KEYS.get(f, f): words for f, (_, _, words) in RECIPE_RANGES.items()}
    choices = {RECIPE_KEYS[f]: ", ".join(sorted(names)) for f, names in CHOICES.items()}
    return ranges | choices


def _code(value: Any) -> str:
    return "`{}`".format(repr(value).replace("|", "\\|"))


def _escape(text: str) -> str:
    return re.sub(r"([|*<\[\]])", r"\\\1", " ".join(text.split()))
