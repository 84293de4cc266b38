"""What is printed before a training: the network, the data, the numbers of the schedule."""

from __future__ import annotations

import torch
from rich.table import Table

from fbnetv3.arch import Arch, count_cost
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
        ("network", _network(run)),
        *lr_table(run.recipe, world_size, per_epoch, images),
        ("starts at step", f"{start_iter}"),
        ("device", f"{run.device}, {torch.get_num_threads()} thread(s) per process"),
        ("folder", str(run.folder)),
    ):
        table.add_row(name, value)
    run.console.print(table)


def _network(run: Run) -> str:
    side = run.preprocessing["resolution"]
    if not isinstance(run.arch, Arch):
        params = sum(p.numel() for p in run.model.parameters())
        return f"{run.arch} at {side} px: {params / 1e6:.2f}M params"
    cost = count_cost(run.arch.replace(num_classes=len(run.classes)), side)
    return (
        f"{run.arch.name} at {side} px: {cost.macs / 1e6:.1f}M MACs, "
        f"{cost.params / 1e6:.2f}M params"
    )
