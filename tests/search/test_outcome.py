"""What an evaluation returns becomes a score, or a failure with a reason of one line."""

from __future__ import annotations

import math
import pickle
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from fbnetv3.search import Trial
from fbnetv3.search.executors.base import attempt
from fbnetv3.search.outcome import reason_text, score_of


class _Broken:
    def __float__(self) -> float:
        raise SystemExit(3)

    def __repr__(self) -> str:
        raise RuntimeError("no text")


class _BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        np.float32(0.5),
        np.float64(0.5),
        np.array(0.5),
        torch.tensor(0.5),
        torch.tensor(0.5, requires_grad=True),
        torch.tensor([0.5]),
        Decimal("0.5"),
        Fraction(1, 2),
    ],
)
def test_numbers_are_scores(value: Any) -> None:
    score, reason = score_of(value)
    assert (type(score), score, reason) == (float, 0.5, None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no score was returned"),
        (math.nan, "the score is nan"),
        (-math.inf, "the score is -inf"),
        (torch.tensor(math.nan), "the score is nan"),
        ("high", "the score is 'high', not a number"),
        (10**400, "not a number"),
        (1j, "the score is 1j, not a number"),
        (
            (0.9, 12.5),
            r"the score is the tuple \(0.9, 12.5\), not a number; return the score alone",
        ),
        ([0.9], "the list"),
        ({"top1": 0.9}, "the dict .* name several scores by objectives= and return them as a dict"),
        (np.zeros(3), "not a number"),
        (torch.zeros(2), "not a number"),
        ((x for x in [1.0]), "the score is <generator object"),
        (np.zeros((40, 40)), "not a number"),
        (lambda: 1.0, "not a number"),
        (_Broken(), "the score is a _Broken, not a number"),
        (object(), "not a number"),
    ],
)
def test_everything_else_fails_the_trial_with_a_reason(value: Any, reason: str) -> None:
    finished = attempt(lambda trial: value, Trial("t", 0, 0, {}))
    assert finished.score is None
    assert re.search(reason, str(finished.reason))
    assert "\n" not in str(finished.reason)
    assert len(str(finished.reason)) < 300
    trial = Trial("t", 0, 0, {})
    trial.finish(value)
    assert (trial.state, trial.reason) == ("failed", finished.reason)
    pickle.dumps((finished.score, finished.reason))  # a worker can send it


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no\nmemory"), "RuntimeError: no memory (test_outcome.py:"),
        (_BrokenError(), "_BrokenError: no message (test_outcome.py:"),
        (FileNotFoundError(2, "No such file", "a\udcff.png"), "a\\udcff.png"),
        (ValueError("x" * 10_000), "ValueError: xxx"),
        (ValueError("a\0b"), "a\\x00b"),
    ],
)
def test_exceptions_become_reasons_that_every_storage_can_hold(
    error: Exception, reason: str
) -> None:
    def evaluate(trial: Trial) -> float:
        raise error

    finished = attempt(evaluate, Trial("t", 0, 0, {}))
    assert finished.score is None
    assert reason in str(finished.reason)
    assert len(str(finished.reason)) <= 500
    str(finished.reason).encode("utf-8")
    assert "\0" not in str(finished.reason)


def test_a_line_has_no_breaks() -> None:
    assert reason_text(" a\n\tb\r\nc ") == "a b c"
