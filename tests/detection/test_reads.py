"""Keys of the config that the training of a detector reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fbnetv3.config import CfgNode, iter_keys
from fbnetv3.config.effects import unread_reason
from fbnetv3.training import train
from tests.reads import Reads, recorded


def test_a_detector_reads_each_key_that_is_not_reported(
    tiny: Callable[..., CfgNode], tmp_path: Path
) -> None:
    """Keys that nobody reads are those that a warning lists where they are given."""
    reads = Reads()
    best = {"SOLVER__KEEP_BEST": "bbox/AP_ema", "SOLVER__ACCUMULATE_STEPS": 2}
    cfg = tiny(SOLVER__MAX_EPOCHS=0.5, SOLVER__WARMUP_EPOCHS=0.0, **best)
    assert "best/bbox/AP_ema" in train(recorded(cfg, reads))
    assert (tmp_path / "out" / "checkpoint_best.pt").exists()
    keys = [key for key, _ in iter_keys(cfg)]
    unread = [key for key in keys if key not in reads and not unread_reason(cfg, key)]
    assert unread == ["VERSION"]  # that of the format, for yacs
