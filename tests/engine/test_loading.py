"""Options of loaders from the keys DATALOADER.*."""

from __future__ import annotations

import pytest
import torch

from fbnetv3.config import ConfigError, get_cfg
from fbnetv3.config.ranges import check_numbers
from fbnetv3.data import LoaderOptions
from fbnetv3.engine.loading import loader_options_from_config


@pytest.mark.parametrize("gpus", [0, 2])
def test_batches_are_pinned_for_a_gpu_alone(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    cfg = get_cfg()
    assert loader_options_from_config(cfg).pin_memory is (gpus > 0)
    cfg.DATALOADER.PIN_MEMORY = False
    assert not loader_options_from_config(cfg).pin_memory


def test_prefetch_and_persistent_workers() -> None:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    assert loader_options_from_config(cfg) == LoaderOptions()
    cfg.merge_from_list(["DATALOADER.PREFETCH", "4", "DATALOADER.PERSISTENT_WORKERS", "False"])
    assert loader_options_from_config(cfg) == LoaderOptions(4, False, False)
    cfg.DATALOADER.PREFETCH = 0
    with pytest.raises(ConfigError, match=r"DATALOADER\.PREFETCH=0 is out of range; allowed: >= 1"):
        check_numbers(cfg)
