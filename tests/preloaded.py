"""Imports what the commands of tests import; see ``tests/forked.py``. Nothing is computed here."""

from __future__ import annotations

import importlib
import os
import warnings

MODULES = [
    "torch._dynamo",  # imported by the first optimizer
    "torch.utils.tensorboard",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "PIL.PngImagePlugin",
    "optuna.storages",
    "scipy.stats",
    "fbnetv3.cli.train",
    "fbnetv3.cli.search",
    "fbnetv3.engine.launch",
    "fbnetv3.engine.logs",
    "fbnetv3.training",
    "fbnetv3.classification.task",
    "fbnetv3.detection.task",
    "fbnetv3.search.acquisition",
    "fbnetv3.search.fbnet.run",
    "fbnetv3.search.predictors.paper",
    "fbnetv3.search.report.page",
    "fbnetv3.search.storage.optuna_store",
    "tests.faults.searches",
]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in MODULES:
        importlib.import_module(name)
assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
