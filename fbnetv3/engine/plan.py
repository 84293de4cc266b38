"""The training plan, a table printed before the first step: network, data, schedule."""

from __future__ import annotations

import torch
from rich.markup import escape
from rich.table import Table

from fbnetv3.engine.distributed import batch_norm_text
from fbnetv3.engine.experiment import Experiment
from fbnetv3.engine.precision import precision_text
from fbnetv3.engine.schedule import lr_table


def print_plan(experiment: Experiment, start_iter: int, epochs_done: float = 0.0) -> None:
    """Prints the training plan to the console.

    Args:
        experiment: The training.
        start_iter: First step to run; above 0 in a resumed training.
        epochs_done: Epochs of the schedule before that step.
    """
    table = Table(show_header=False, title="Training plan")
    context, recipe, loader = experiment.context, experiment.recipe, experiment.loader
    world_size = context.process.world_size
    batches = recipe.batch_size, recipe.accumulate_steps
    sync_bn = experiment.cfg.MODEL.SYNC_BN
    batch_norm = batch_norm_text(experiment.model, world_size, *batches, sync_bn=sync_bn)
    for name, value in (
        *experiment.plan,
        *lr_table(recipe, world_size, loader.iters_per_epoch, len(loader.dataset)),
        ("batch norm", batch_norm),
        ("precision", precision_text(recipe, context.device)),
        ("more or fewer processes", "share the same batch; steps, lr and EMA decay do not change"),
        ("starts at step", f"{start_iter}, after {epochs_done:.4g} epochs"),
        ("device", f"{context.device}, {torch.get_num_threads()} thread(s) per process"),
        ("folder", str(experiment.folder)),
    ):
        table.add_row(name, escape(value))  # class names may have brackets, rich's markup
    context.console.print(table)
