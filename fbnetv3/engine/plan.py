"""What is printed before a training: the network, the data, the numbers of the schedule."""

from __future__ import annotations

import torch
from rich.table import Table

from fbnetv3.engine.distributed import norm_text
from fbnetv3.engine.run import Run
from fbnetv3.engine.schedule import lr_table


def print_plan(run: Run, start_iter: int) -> None:
    """Prints the table.

    Args:
        run: the training.
        start_iter: the step that it begins or goes on with.
    """
    table = Table(show_header=False, title="Training plan")
    images = len(run.loader.dataset)
    world_size, per_epoch = run.process.world_size, run.loader.iters_per_epoch
    for name, value in (
        *run.plan,
        *lr_table(run.recipe, world_size, per_epoch, images),
        ("batch norm", norm_text(run.model, world_size, run.recipe.batch_size)),
        ("more or fewer processes", "divide the same batch; steps, lr and EMA decay stay"),
        ("starts at step", f"{start_iter}"),
        ("device", f"{run.device}, {torch.get_num_threads()} thread(s) per process"),
        ("folder", str(run.folder)),
    ):
        table.add_row(name, value)
    run.console.print(table)
