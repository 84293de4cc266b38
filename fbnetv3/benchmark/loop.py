"""What the training loop costs: a bare PyTorch loop, and the Trainer with the hooks of a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fbnetv3.benchmark.variants import OURS, Shape, Step, images, network
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.optim import build_optimizer
from fbnetv3.engine.schedule import build_lr_scheduler
from fbnetv3.recipe import Recipe

BARE = "bare PyTorch loop"
TRAINER = "Trainer and its hooks"

_CLASSES = 1000
_ITERS_PER_EPOCH = 1000
_LOG_PERIOD = 20
_LAST_ITERATION = 10**9
# small steps: the cost of a step does not depend on where the weights go
_RECIPE = Recipe(optimizer="sgd", lr=1e-4, mixup=0.0, dropout=0.0, drop_path=0.0)


class _CrossEntropy:
    """A task of one fixed batch, without evaluation."""

    def __init__(self, shape: Shape) -> None:
        self.batch = images(OURS, shape), torch.arange(shape.batch) % _CLASSES

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


@contextmanager
def loop_steps(name: str, shape: Shape) -> Iterator[dict[str, Step]]:
    """Lends steps of both loops, on the same network and batch, EMA included in both.

    The Trainer writes metrics.json and TensorBoard events every 20 steps, as a run does.
    """
    from detectron2.engine import hooks
    from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter

    from fbnetv3.engine.hooks import EMAHook, Every, WriterHook
    from fbnetv3.engine.trainer import Trainer

    task = _CrossEntropy(shape)
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

    def step() -> None:
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
        trainer.iter += 1

    with TemporaryDirectory() as folder, EventStorage() as trainer.storage:
        writers = [JSONWriter(f"{folder}/metrics.json"), TensorboardXWriter(folder)]
        writing = WriterHook(writers, [Every(_LOG_PERIOD)], Path(folder))
        trainer.register_hooks([hooks.IterationTimer(), hooks.LRScheduler(), EMAHook(ema), writing])
        trainer.before_train()
        yield {BARE: _bare_step(name, task), TRAINER: step}
        writing.after_train()
