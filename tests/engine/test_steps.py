"""Steps that accumulate gradients, and steps that do not wait for the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from fbnetv3.config import ConfigError
from fbnetv3.engine.distributed import batch_norm_text
from fbnetv3.engine.ema import ModelEMA
from fbnetv3.engine.hooks import EMAHook, Every, ReadLossesHook
from fbnetv3.engine.loop import _check_passes
from fbnetv3.engine.precision import amp_dtype, precision_text
from fbnetv3.engine.trainer import NonFiniteLossError, Trainer, split_batch
from fbnetv3.recipe import Recipe
from fbnetv3.training import train
from tests.runs import last_state, rows_without_times

BATCH = 12


class Task:
    """Cross-entropy of a batch of vectors; the loss of ``bad`` steps is infinite."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        self._bad = bad
        self.sizes: list[int] = []
        self.numbers: list[int] = []

    def losses(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], iteration: int
    ) -> dict[str, Tensor]:
        vectors, labels = batch
        self.sizes.append(len(labels))
        self.numbers.append(iteration)
        loss = F.cross_entropy(model(vectors), labels)
        return {"loss": loss * math.inf if iteration in self._bad else loss}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.Hardswish(), nn.Linear(16, 4))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield (
            torch.randn(BATCH, 5, generator=generator),
            torch.randint(4, (BATCH,), generator=generator),
        )


def make(model: nn.Module, task: Task, **options: Any) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0)
    return Trainer(
        model=model, optimizer=optimizer, scheduler=schedule, batches=batches(), task=task, seed=0,
        device=torch.device("cpu"), **options,
    )  # fmt: skip


class Steps(HookBase):
    """Calls a function after each step."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def after_step(self) -> None:
        self._call(self.trainer)


# --- accumulation ---


@pytest.mark.parametrize("parts", [2, 3, 12])
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_accumulated_passes_train_as_one_batch(parts: int, clip: float) -> None:
    results = []
    for steps in (1, parts):
        model, task = network(), Task()
        ema = ModelEMA(model, 0.5)
        trainer = make(model, task, accumulate_steps=steps, clip_grad_norm=clip)
        losses: list[float] = []
        trainer.register_hooks(
            [
                EMAHook(ema),
                Steps(lambda t, kept=losses: kept.append(t.storage.latest()["loss"][0])),
            ]
        )
        trainer.train(0, 5)
        assert task.sizes == [BATCH // steps] * (5 * steps)
        assert task.numbers == list(range(5 * steps))  # each pass has draws of its own
        assert ema.num_updates == len(losses) == 5
        results.append((list(model.parameters()), losses))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-5)


def test_parts_of_a_batch() -> None:
    vectors, labels = torch.arange(12).view(6, 2), torch.arange(6)
    whole: Any = ({"image": vectors}, [labels, labels])
    assert split_batch(whole, 1) == [whole]
    boxes = [{"image_id": i} for i in range(6)]
    assert split_batch(boxes, 3) == [boxes[:2], boxes[2:4], boxes[4:]]
    parts = split_batch((vectors, labels), 2)
    assert [label.tolist() for _, label in parts] == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(torch.cat([pixels for pixels, _ in parts]), vectors)
    assert [p["x"].tolist() for p in split_batch({"x": labels}, 3)] == [[0, 1], [2, 3], [4, 5]]


@pytest.fixture
def one_rank(tmp_path: Any) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_averaged_over_processes_once_per_step(
    one_rank: None, compiled: bool
) -> None:
    model: nn.Module = DistributedDataParallel(network())
    reductions: list[int] = []

    def reduce(bucket: Any) -> Any:
        reductions.append(bucket.index())
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    model.register_comm_hook(None, lambda state, bucket: reduce(bucket))
    if compiled:
        model = torch.compile(model, backend="eager")
    trainer = make(model, Task(), accumulate_steps=4)
    trainer.train(0, 3)
    assert len(reductions) == 3


# --- losses on the device ---


class Reads(TorchDispatchMode):
    """Counts the operations that wait for a GPU: a tensor becomes a number or a list."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.is_nonzero,
            torch.ops.aten.equal,
            torch.ops.aten.nonzero,
        )
        return func(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    lists: list[int] = []
    real = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: lists.append(len(self)) or real(self))
    model = network()
    trainer = make(model, Task(), read_period=5, clip_grad_norm=1.0)
    trainer.register_hooks([EMAHook(ModelEMA(model, 0.9))])
    trainer.train(0, 1)  # SGD's momentum starts in the first step
    with Reads() as reads:
        trainer.train(1, 5)
    assert reads.count == 0
    assert lists == [5]  # five steps at once


def test_reading_later_records_the_same_numbers() -> None:
    histories = []
    for period in (1, 4, 100):
        trainer = make(network(), Task(), read_period=period)
        trainer.register_hooks([ReadLossesHook([Every(3)])])
        trainer.train(0, 10)
        histories.append(trainer.storage.history("loss").values())
    assert [iteration for _, iteration in histories[0]] == list(range(10))
    assert histories[1] == histories[2] == histories[0]


@pytest.mark.parametrize(("bad", "named"), [((6,), 6), ((4, 6), 4), ((7, 8), 7), ((8,), 8)])
def test_the_first_bad_step_is_named_before_anything_is_saved(
    bad: tuple[int, ...], named: int
) -> None:
    saved: list[int] = []
    due = Every(9)
    trainer = make(network(), Task(bad), read_period=5)
    hooks = [ReadLossesHook([due]), Steps(lambda t: saved.append(t.iter) if due(t) else None)]
    trainer.register_hooks(hooks)
    with pytest.raises(NonFiniteLossError, match=rf"loss = inf at iteration {named} \(lr 0.1,"):
        trainer.train(0, 20)
    assert not saved


def test_an_error_of_detectron2_about_infinite_boxes_names_the_bad_step() -> None:
    class Boxes(Task):
        def losses(self, model: nn.Module, batch: Any, iteration: int) -> dict[str, Tensor]:
            if iteration == 3:
                raise FloatingPointError("Predicted boxes contain Inf/NaN")
            return super().losses(model, batch, iteration)

    with pytest.raises(NonFiniteLossError, match="at iteration 2 "):
        make(network(), Boxes((2,)), read_period=20).train(0, 5)
    with pytest.raises(FloatingPointError):
        make(network(), Boxes(), read_period=20).train(0, 5)


# --- trainings ---


def test_a_training_counts_optimizer_steps(tiny: Any, tmp_path: Any, capsys: Any) -> None:
    """Schedule, average, records and checkpoints are those of the batch of all passes."""
    rows, states = [], []
    for name, passes in (("one", 1), ("two", 2)):
        options = {"SOLVER__IMS_PER_BATCH": 40 // passes, "SOLVER__ACCUMULATE_STEPS": passes}
        folder = tmp_path / name
        cfg = tiny(OUTPUT_DIR=str(folder), SOLVER__MAX_EPOCHS=1.0, SOLVER__LOG_PERIOD=1, **options)
        train(cfg, pictures=False)
        rows.append(rows_without_times(folder))
        states.append(last_state(folder))
    one, two = ([(row["iteration"], row["lr"]) for row in records] for records in rows)
    assert one == two
    assert states[0]["iteration"] == states[1]["iteration"] == 3
    assert states[0]["ema"]["num_updates"] == states[1]["ema"]["num_updates"]
    plan = "".join(capsys.readouterr().err.split()).replace("│", "")
    assert "40=20x1process(es)x2passes" in plan
    assert "overthe20imagesofeachof2passesofastep(SOLVER.ACCUMULATE_STEPS)" in plan


def test_the_plan_states_the_images_of_synchronised_batch_norm() -> None:
    text = batch_norm_text(nn.SyncBatchNorm(3), 4, 20, accumulate_steps=3)
    assert text == (
        "over the 20 images of all 4 processes (MODEL.SYNC_BN True) in each of 3 passes of a step "
        "(SOLVER.ACCUMULATE_STEPS)"
    )


def test_passes_that_ranks_cannot_share_are_refused() -> None:
    _check_passes(Recipe(batch_size=12, accumulate_steps=2), 4)
    with pytest.raises(ConfigError, match=r"SOLVER\.IMS_PER_BATCH=15 .* 2 processes"):
        _check_passes(Recipe(batch_size=15, accumulate_steps=2), 2)


@pytest.mark.parametrize(
    ("recipe", "device", "dtype", "says"),
    [
        (Recipe(), "cpu", None, "float32"),
        (Recipe(amp=True), "cpu", None, "bfloat16 works on both"),
        (Recipe(amp=True), "cuda", torch.float16, "float16 and float32 (SOLVER.AMP, scaled"),
        (Recipe(amp=True, amp_dtype="bfloat16"), "cpu", torch.bfloat16, "bfloat16 and float32"),
        (Recipe(amp=True, amp_dtype="bfloat16"), "cuda", torch.bfloat16, "bfloat16 and float32"),
    ],
)
def test_precision(recipe: Recipe, device: str, dtype: Any, says: str) -> None:
    assert amp_dtype(recipe, torch.device(device)) is dtype
    assert says in precision_text(recipe, torch.device(device))


def test_bfloat16_on_a_cpu(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    real = F.cross_entropy

    def loss(logits: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.append(logits.dtype)
        return real(logits, *args, **options)

    monkeypatch.setattr(F, "cross_entropy", loss)
    amp = {"SOLVER__AMP__ENABLED": True, "SOLVER__AMP__DTYPE": "bfloat16"}
    train(tiny(SOLVER__MAX_EPOCHS=0.2, SOLVER__WARMUP_EPOCHS=0.0, **amp), pictures=False)
    assert seen[0] is torch.bfloat16
