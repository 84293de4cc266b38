"""The variants that are compared, and their ratios."""

from __future__ import annotations

import pytest
import torch

from fbnetv3.benchmark import comparison, variants
from fbnetv3.benchmark.variants import Shape
from fbnetv3.engine.ema import ModelEMA


def test_ratios_are_relative_to_the_first_variant() -> None:
    rounds = {"timm": [0.4, 0.2, 9.0], "ours": [0.1, 0.3, 0.2]}
    first, second = comparison.with_ratios("net", "latency", Shape(4, 32), "ms", rounds)
    assert (first.variant, first.value, first.ratio) == ("timm", pytest.approx(400), 1.0)
    assert (second.value, second.ratio) == (pytest.approx(200), pytest.approx(2.0))
    assert second.rounds == pytest.approx([100, 300, 200])


def test_networks_are_compared_with_timms() -> None:
    pytest.importorskip("timm")
    assert variants.inference_variants("fbnetv3_b", compile=True) == [
        "timm",
        "timm, channels_last",
        "ours",
        "deploy",
        "deploy, compiled",
    ]
    assert variants.inference_variants("fbnetv3_a", compile=False) == ["ours", "deploy"]
    assert variants.ema_variants("fbnetv3_b") == ["timm", "ours"]


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants.importlib.util, "find_spec", lambda name: None)
    assert variants.inference_variants("fbnetv3_b", compile=False) == ["ours", "deploy"]


def test_layouts() -> None:
    shape = Shape(2, 8)
    default = variants.images(variants.TIMM, shape)
    ours = variants.images(variants.OURS, shape)
    assert torch.equal(default, ours)
    assert default.is_contiguous()
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_training_step_trains() -> None:
    step = variants.training_step("fbnetv3_a0", "ours", Shape(2, 32))
    before = step.model.head.fc.weight.detach().clone()
    step()
    assert step.model.training
    assert not torch.equal(step.model.head.fc.weight, before)


def test_ema_update_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[ModelEMA] = []

    class RecordedEMA(ModelEMA):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            created.append(self)

    monkeypatch.setattr(variants, "ModelEMA", RecordedEMA)
    variants.ema_update("fbnetv3_a0", "ours")()
    assert created[0].num_updates == 2
