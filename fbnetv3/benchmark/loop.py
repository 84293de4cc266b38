"""The overhead of the Trainer, with hooks for times, learning rate, EMA and logs, over a bare loop.

Needs detectron2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.benchmark.variants import OURS, Shape, Step, images, network
from fbnetv3.engine.detectron2_loop import hooks
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.hooks import EMAHook, Every, WriterHook
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.schedule import build_lr_scheduler
from fbnetv3.engine.trainer import Trainer
from fbnetv3.recipe import Recipe

BARE = "bare PyTorch loop"
TRAINER = "Trainer and its hooks"

_ITERS_PER_EPOCH = 1000
_LOG_PERIOD = 20
_LAST_ITERATION = 10**9  # never reached
# A small learning rate keeps the weights finite; the time of a step does not depend on it.
_RECIPE = Recipe(optimizer="sgd", lr=1e-4, mixup=0.0, dropout=0.0, drop_path=0.0)


class _CrossEntropy:
    """A classification task with one fixed batch and no evaluation."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        self.batch = images(OURS, shape), torch.arange(shape.batch) % num_classes

    def losses(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], iteration: int
    ) -> dict[str, Tensor]:
        pixels, labels = batch
        return {"loss": F.cross_entropy(model(pixels), labels)}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


def _parts(name: str) -> tuple[nn.Module, torch.optim.Optimizer, ModelEMA]:
    model = network(name, OURS).train()
    return model, build_optimizer(model, _RECIPE), ModelEMA(model, _RECIPE.ema_decay)


def _bare_step(name: str, task: _CrossEntropy) -> Step:
    model, optimizer, ema = _parts(name)
    scheduler = build_lr_scheduler(optimizer, _RECIPE, _ITERS_PER_EPOCH)

    def step() -> None:
        loss = task.losses(model, task.batch, 0)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        ema.update(model)

    return step


def _trainer(name: str, task: _CrossEntropy) -> tuple[Trainer, ModelEMA]:
    model, optimizer, ema = _parts(name)
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        scheduler=build_lr_scheduler(optimizer, _RECIPE, _ITERS_PER_EPOCH),
        batches=itertools.repeat(task.batch),
        task=task,
        seed=0,
        device=torch.device("cpu"),
    )
    trainer.max_iter = _LAST_ITERATION
    return trainer, ema


@contextmanager
def loop_steps(name: str, shape: Shape) -> Iterator[dict[str, Step]]:
    """Yields a step of the bare loop and a step of the Trainer, by name.

    Both loops use the same architecture and batch, and update an EMA of the weights.

    The Trainer writes ``metrics.json`` and TensorBoard events every 20 steps, as in a run.

    Args:
        name: Name of the network.
        shape: Images of a step.
    """
    with torch.inference_mode():
        logits = network(name, OURS).eval()(images(OURS, Shape(1, shape.resolution)))
    task = _CrossEntropy(shape, logits.shape[1])
    trainer, ema = _trainer(name, task)

    def step() -> None:
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
        trainer.iter += 1

    with TemporaryDirectory() as folder, EventStorage() as trainer.storage:
        writers = [JSONWriter(f"{folder}/metrics.json"), TensorboardXWriter(folder)]
        writer = WriterHook(writers, [Every(_LOG_PERIOD)], Path(folder))
        trainer.register_hooks([hooks.IterationTimer(), hooks.LRScheduler(), EMAHook(ema), writer])
        trainer.before_train()
        yield {BARE: _bare_step(name, task), TRAINER: step}
        writer.after_train()
