"""The registries of everything that configs know by name, except ops and architectures.

Each kind has one registry, and one decorator ``register_...``, which ``fbnetv3`` exports. The
built-in entries are registered where they are implemented; the names of those whose modules need
torch are declared here, so that configs can be checked without torch. An entry is called as the
docstring of its registry says. Ops are registered by ``fbnetv3.register_op`` in modeling/.
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
"""``make(groups, recipe) -> torch Optimizer``, with ``recipe.scaled_lr``; SOLVER.OPTIMIZER

The groups are dicts with ``params`` and ``weight_decay``, and ``lr`` where it is not the peak.
"""

SCHEDULES: Registry[Factory] = Registry(
    "schedule", declared=("exponential", "cosine", "constant", "steps")
)
"""``factor(recipe, epochs since warm-up) -> share of the peak lr``; SOLVER.LR_SCHEDULER_NAME"""

LOSSES: Registry[Factory] = Registry("loss", declared=("cross_entropy", "binary_cross_entropy"))
"""``loss(logits (N, C), targets (N, C)) -> scalar tensor``; SOLVER.LOSS

Targets are probabilities of classes, after mixup and label smoothing.
"""

HOOKS: Registry[Factory] = Registry("hook")
"""``make(cfg) -> detectron2 HookBase``; HOOKS"""

WRITERS: Registry[Factory] = Registry("writer", declared=("tensorboard", "csv", "mlflow", "wandb"))
"""``make(run: WriterRun) -> Writer``, see engine/writers.py; WRITERS"""

SPACES: Registry[Factory] = Registry("space")
"""``make() -> table of a space, as its yaml has it, or TableSpace``; SEARCH.SPACE"""

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
"""Decorator with a name that registers a training transform; :data:`TRANSFORMS` has its call."""
register_network = NETWORKS.register
"""Decorator with a name that registers a network; :data:`NETWORKS` has its call."""
register_optimizer = OPTIMIZERS.register
"""Decorator with a name that registers an optimizer; :data:`OPTIMIZERS` has its call."""
register_schedule = SCHEDULES.register
"""Decorator with a name that registers a schedule; :data:`SCHEDULES` has its call."""
register_loss = LOSSES.register
"""Decorator with a name that registers a loss; :data:`LOSSES` has its call."""
register_hook = HOOKS.register
"""Decorator with a name that registers a hook of the training loop; :data:`HOOKS` has its call."""
register_writer = WRITERS.register
"""Decorator with a name that registers a writer of metrics; :data:`WRITERS` has its call."""
register_space = SPACES.register
"""Decorator with a name that registers a search space; :data:`SPACES` has its call."""
register_statistic = STATISTICS.register
"""Decorator with a name that registers a statistic of networks; :data:`STATISTICS` has its call."""
register_evaluator = EVALUATORS.register
"""Decorator with a name that registers an evaluator of trials; :data:`EVALUATORS` has its call."""
register_executor = EXECUTORS.register
"""Decorator with a name that registers an executor of trials; :data:`EXECUTORS` has its call."""
register_dataset = DATASETS.register
"""Decorator with a name that registers a data set; :data:`DATASETS` has its call."""
