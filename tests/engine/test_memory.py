"""The estimate of a step's memory: against what autograd keeps, and against small devices."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fbnetv3.arch import count_cost, get_arch
from fbnetv3.engine.memory import MemoryEstimate, device_memory, estimate_memory, warn_of_memory
from fbnetv3.modeling import build_model
from fbnetv3.recipe import Recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
WITHIN = 1.05
"""Factor between the estimated activations and the tensors that autograd keeps."""


def kept_bytes(name: str, side: int, batch: int, dtype: torch.dtype | None) -> int:
    """Returns the bytes of the tensors that the backward pass keeps, without the weights."""
    model = build_model(name, num_classes=1000).train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # alive, so that none is reused
        return tensor

    images = torch.randn(batch, 3, side, side)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=dtype, enabled=dtype is not None),
    ):
        F.cross_entropy(model(images), torch.zeros(batch, dtype=torch.long))
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(
    ("name", "side", "amp"),
    [("fbnetv3_a0", 96, False), ("fbnetv3_a0", 96, True), ("fbnetv3_g", 64, False)],
)
def test_the_estimate_is_what_autograd_keeps(name: str, side: int, amp: bool) -> None:
    cost = count_cost(get_arch(name).replace(num_classes=1000), side)
    recipe = Recipe(batch_size=4, amp=amp, amp_dtype="bfloat16")
    estimate = estimate_memory(cost, recipe, side, CPU)
    kept = kept_bytes(name, side, 4, torch.bfloat16 if amp else None)
    # the 16-bit copies of the weights, which autograd keeps too, count among the weights
    activations = kept - 2 * cost.params * amp
    assert estimate.activations / WITHIN < activations < estimate.activations * WITHIN


@pytest.mark.parametrize(
    ("changes", "weights", "activations"),
    [
        ({}, 5, 1.0),  # weights, gradients, two states of RMSProp, average
        ({"optimizer": "sgd"}, 4, 1.0),
        ({"ema": False}, 4, 1.0),
        ({"accumulate_steps": 4}, 5, 1.0),
        ({"batch_size": 128}, 5, 0.5),
    ],
)
def test_what_counts(changes: dict[str, Any], weights: int, activations: float) -> None:
    cost = count_cost("fbnetv3_a")
    full = estimate_memory(cost, Recipe(), 224, GPU).activations
    estimate = estimate_memory(cost, Recipe(**changes), 224, GPU)
    assert estimate.weights == weights * 4 * cost.params
    assert estimate.activations == pytest.approx(activations * full)
    shared = estimate_memory(cost, Recipe(**changes), 224, GPU, world_size=2)
    assert shared.activations == pytest.approx(estimate.activations / 2)


def test_frozen_weights_have_no_gradients_and_no_states() -> None:
    cost = count_cost("fbnetv3_a")
    estimate = estimate_memory(cost, Recipe(), 224, GPU, frozen=1000)
    assert estimate.weights == 4 * (5 * cost.params - 3 * 1000)


def set_memory(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    properties = SimpleNamespace(total_memory=size)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_g_at_batch_2048_and_320_px_fits_no_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    recipe = Recipe(batch_size=2048)
    set_memory(monkeypatch, 80e9)
    estimate = estimate_memory(count_cost("fbnetv3_g", 320), recipe, 320, GPU)
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        warn_of_memory(estimate, recipe, GPU)
    (text,) = caplog.messages
    assert text.startswith("a step does not fit into the memory of cuda:0, 80.0 GB: it takes at ")
    assert "642.57 GB per process: activations of 2048 images at 320 px" in text
    assert "\n" not in text
    # the remedy that is named fits
    assert "SOLVER.IMS_PER_BATCH 128 and SOLVER.ACCUMULATE_STEPS 16" in text
    smaller = Recipe(batch_size=128, accumulate_steps=16)
    fits = estimate_memory(count_cost("fbnetv3_g", 320), smaller, 320, GPU)
    caplog.clear()
    warn_of_memory(fits, smaller, GPU)
    assert not caplog.messages


def test_a_network_whose_weights_alone_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    set_memory(monkeypatch, 1000)
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        warn_of_memory(MemoryEstimate(500, 2000, 4, 32), Recipe(), GPU)
    assert "a smaller network" in caplog.text


def test_the_memory_of_this_machine() -> None:
    size = device_memory(CPU)
    assert size is None or size > 2**28


def test_the_plan_warns_before_the_first_step(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any, capsys: Any
) -> None:
    from fbnetv3.training import train

    monkeypatch.setattr("fbnetv3.engine.memory.device_memory", lambda device: 10_000)
    with caplog.at_level(logging.WARNING, logger="fbnetv3"):
        train(tiny(SOLVER__MAX_EPOCHS=0.1, SOLVER__WARMUP_EPOCHS=0.0), pictures=False)
    assert "does not fit into the memory of cpu" in caplog.text
