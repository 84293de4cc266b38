"""The line of a training's step, from what the event storage holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils.events import EventStorage

from fbnetv3.config import CfgNode
from fbnetv3.engine.metrics import recent_values, restore_values
from fbnetv3.engine.printer import StepPrinter
from fbnetv3.training import train


def line_of(storage: EventStorage, caplog: Any, *numbers: int) -> str:
    """Returns the line that is logged; ``numbers`` are the arguments of the printer."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="fbnetv3"):
        StepPrinter(*numbers).write()
    (line,) = caplog.messages
    return str(line)


SPEEDS = {"images_per_second": 1234.5, "peak_memory_mb": 2345.6, "eta_seconds": 3723.4}


@pytest.mark.parametrize(
    ("start", "numbers", "smoothed", "plain", "expected"),
    [
        (0, (10, 4), {}, {}, "iteration 1/10  epoch 0.25/2.5"),
        (9, (10, 4), {}, {"eta_seconds": 0.0}, "iteration 10/10  epoch 2.5/2.5"),
        (5, (10, 2, 4), {}, {}, "iteration 6/10  epoch 1/3"),
        (3, (4, 1), {"loss": 0.123456}, {}, "iteration 4/4  epoch 4/4  loss 0.1235"),
        (3, (4, 1), {"loss_cls": 1.0, "loss_box": 2.0, "num_pos": 7.0, "total_loss": 3.0}, {},
         "iteration 4/4  epoch 4/4  loss_cls 1  loss_box 2  total_loss 3"),
        (3, (4, 1), {"lr": 0.05}, {"val/loss": 5.0, "val/loss_ema": 4.0, "val/top1": 9.0},
         "iteration 4/4  epoch 4/4  lr 0.05"),
        (3, (4, 1), {"time": 0.25, "data_time": 0.01}, SPEEDS,
         ("iteration 4/4  epoch 4/4  step 0.25 s, of which data 0.01 s  1234 images/s  "
         "peak memory 2,346 MB  left 1:02:03")),
    ],
)  # fmt: skip
def test_the_line(
    start: int, numbers: tuple[int, ...], smoothed: dict[str, float], plain: dict[str, float],
    expected: str, caplog: Any,
) -> None:  # fmt: skip
    with EventStorage(start) as storage:
        storage.put_scalars(**smoothed)
        storage.put_scalars(smoothing_hint=False, **plain)
        assert line_of(storage, caplog, *numbers) == expected


def test_losses_are_medians_and_values_of_earlier_steps_are_not_repeated(caplog: Any) -> None:
    with EventStorage(0) as storage:
        storage.put_scalars(smoothing_hint=False, **SPEEDS)
        for loss in (1.0, 100.0, 2.0):
            storage.put_scalar("loss", loss)
            storage.step()
        storage.iter -= 1
        assert line_of(storage, caplog, 3, 1) == "iteration 3/3  epoch 3/3  loss 2"


def test_the_losses_of_a_resumed_training(caplog: Any) -> None:
    with EventStorage(0) as before:
        before.put_scalar("loss", 3.0)
    with EventStorage(1) as storage:
        restore_values(storage, recent_values(before))
        assert "loss" not in line_of(storage, caplog, 3, 1)  # no step has run
        storage.put_scalar("loss", 5.0)
        assert line_of(storage, caplog, 3, 1).endswith("loss 4")


def test_the_lines_of_a_training(tiny: Callable[..., CfgNode], out: Path, caplog: Any) -> None:
    """The scores of each evaluation are logged once, as they are."""
    with caplog.at_level(logging.INFO, logger="fbnetv3"):
        train(
            tiny(
                SOLVER__MAX_EPOCHS=1.0,
                SOLVER__LOG_PERIOD=1,
                TEST__EVAL_PERIOD=2,
                TEST__EVAL_EPOCHS=0.0,
            ),
            pictures=False,
        )
    steps = [text for text in caplog.messages if text.startswith("iteration ") and "lr " in text]
    scores = [text for text in caplog.messages if "val/loss" in text]
    assert [text.split()[1] for text in steps] == [f"{i}/6" for i in range(1, 7)]
    assert [text.split()[1] for text in scores] == ["2:", "4:", "6:"]
    assert not set(steps) & set(scores)
    assert steps[-1].count("loss") == 1
