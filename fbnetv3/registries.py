"""The registries of what configs name, except ops, architectures and detection data sets.

Each kind has one registry, and one decorator ``register_...``, which ``fbnetv3`` exports. The
built-in entries are registered where they are implemented; the names of those whose modules need
torch are declared here, so that configs can be checked without torch. The docstring of a registry
says how its entries are called and, after the semicolon, which config keys name them. Ops are
registered by ``fbnetv3.register_op`` in modeling/, detection data sets in detection/datasets.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fbnetv3.registry import Registry

Factory = Callable[..., Any]

DATASETS: Registry[Factory] = Registry("data set")
"""``open() -> ImageDataset or map-style torch Dataset of (image, label)``; DATASETS.TRAIN, TEST"""

TRANSFORMS: Registry[Factory] = Registry("transform")
"""``make(**arguments) -> function(PIL image) -> PIL image``; INPUT.TRANSFORMS

Random numbers come from torch's generator, which the loaders seed for each image.
"""

NETWORKS: Registry[Factory] = Registry("network")
"""``make(num_classes, **arguments) -> nn.Module``, images (N, 3, H, W) to logits; MODEL.ARCH"""

OPTIMIZERS: Registry[Factory] = Registry(
    "optimizer", declared=("rmsprop", "sgd", "adamw", "lion", "muon")
)
"""``make(groups, recipe) -> torch Optimizer``; SOLVER.OPTIMIZER

Its learning rate is ``recipe.scaled_lr``. The groups are dicts with ``params`` and
``weight_decay``, and with ``lr`` if the group has another learning rate.
"""

SCHEDULES: Registry[Factory] = Registry(
    "schedule", declared=("exponential", "cosine", "constant", "steps")
)
"""``factor(recipe, epochs since warm-up) -> share of the peak lr``; SOLVER.LR_SCHEDULER_NAME"""

LOSSES: Registry[Factory] = Registry("loss", declared=("cross_entropy", "binary_cross_entropy"))
"""``loss(logits (N, C), targets (N, C)) -> scalar tensor``; SOLVER.LOSS

Targets are probabilities of classes, after mixup and label smoothing. Those of an image with
several labels need not sum to 1.
"""

HOOKS: Registry[Factory] = Registry("hook")
"""``make(cfg) -> detectron2 HookBase``; HOOKS"""

WRITERS: Registry[Factory] = Registry("writer", declared=("tensorboard", "csv", "mlflow", "wandb"))
"""``make(run: WriterRun) -> Writer``, see engine/writers.py; WRITERS"""

SPACES: Registry[Factory] = Registry("space")
"""``make() -> TableSpace, or the table of a space as in a yaml file``; SEARCH.SPACE"""

LATENCY = "latency_ms"
"""The built-in statistic that needs a latency table, SEARCH.LATENCY_TABLE."""
STATISTIC_UNITS: Mapping[str, str] = {
    "macs": "multiply-adds",
    "params": "parameters",
    "activations": "activations",
    LATENCY: "milliseconds",
}
"""Unit of each built-in statistic, by name."""
COUNTED = tuple(name for name in STATISTIC_UNITS if name != LATENCY)
"""Names of the built-in statistics that are counted, and are attributes of a network's cost."""
STATISTICS: Registry[Factory] = Registry("statistic", declared=STATISTIC_UNITS)
"""``cost(network: Arch | NamedNetwork) -> number``; SEARCH.CONSTRAINTS, BUDGETS, OBJECTIVES

The built-in statistics are declared, and computed for many candidates at once by the space.
"""

EVALUATORS: Registry[Factory] = Registry("evaluator", declared=("train",))
"""``make(setup: SearchSetup, folder) -> function(trial: Trial) -> score``; SEARCH.EVALUATOR"""

EXECUTORS: Registry[Factory] = Registry("executor", declared=("local", "ray"))
"""``make(cfg) -> Executor``; SEARCH.EXECUTOR"""

register_transform = TRANSFORMS.register
"""Decorator that registers a training transform under a name; see :data:`TRANSFORMS`."""
register_network = NETWORKS.register
"""Decorator that registers a network under a name; see :data:`NETWORKS`."""
register_optimizer = OPTIMIZERS.register
"""Decorator that registers an optimizer under a name; see :data:`OPTIMIZERS`."""
register_schedule = SCHEDULES.register
"""Decorator that registers a schedule under a name; see :data:`SCHEDULES`."""
register_loss = LOSSES.register
"""Decorator that registers a loss under a name; see :data:`LOSSES`."""
register_hook = HOOKS.register
"""Decorator that registers a hook of the training loop under a name; see :data:`HOOKS`."""
register_writer = WRITERS.register
"""Decorator that registers a writer of metrics under a name; see :data:`WRITERS`."""
register_space = SPACES.register
"""Decorator that registers a search space under a name; see :data:`SPACES`."""
register_statistic = STATISTICS.register
"""Decorator that registers a statistic of networks under a name; see :data:`STATISTICS`."""
register_evaluator = EVALUATORS.register
"""Decorator that registers an evaluator of trials under a name; see :data:`EVALUATORS`."""
register_executor = EXECUTORS.register
"""Decorator that registers an executor of trials under a name; see :data:`EXECUTORS`."""
register_dataset = DATASETS.register
"""Decorator that registers a data set under a name; see :data:`DATASETS`."""
