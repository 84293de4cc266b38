"""Keys of the config that the training of a classifier reads."""

from __future__ import annotations

from collections.abc import Callable

from fbnetv3.config import CfgNode, iter_keys
from fbnetv3.config.effects import unread_reason
from fbnetv3.training import train
from tests.reads import Reads, recorded


def test_a_classifier_reads_each_key_that_is_not_reported(tiny: Callable[..., CfgNode]) -> None:
    """Keys that nobody reads are those that a warning lists where they are given."""
    reads = Reads()
    cfg = tiny(SOLVER__MAX_EPOCHS=0.2, SOLVER__WARMUP_EPOCHS=0.0)
    train(recorded(cfg, reads))
    keys = [key for key, _ in iter_keys(cfg)]
    unread = [key for key in keys if key not in reads and not unread_reason(cfg, key)]
    assert unread == ["VERSION"]  # that of the format, for yacs
