"""Spaces that do not fit the config of a search over classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fbnetv3.search import SearchError

pytest.importorskip("detectron2")

from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.tasks import check_task

EPOCHS = {"epochs": {"choices": [2, 8]}}
LR = {"lr": {"choices": [0.1, 0.2]}}
NEVER = {"SEARCH.EARLY_STOP": 0.0}
STEPS = {"SOLVER.LR_SCHEDULER_NAME": "steps", "SOLVER.STEPS": (1,)}
NETWORK = {"network": "timm/resnet18", "arguments": {"stem_width": {"choices": [8, 16]}}}


def _setup(folder: Path, table: dict[str, Any], opts: dict[str, Any]) -> SearchSetup:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(table))
    cfg = get_search_cfg()
    values = {"SEARCH.SPACE": str(path), "MODEL.ARCH": "fbnetv3_nano_a", **opts}
    cfg.merge_from_list([item for pair in values.items() for item in pair])
    return SearchSetup(cfg)


@pytest.mark.parametrize(
    ("recipe", "opts", "message"),
    [
        (EPOCHS, {}, "searches epochs, but SEARCH.EARLY_STOP=0.92 compares trainings after the"),
        ({"epochs": {"range": [2.0, 8.0]}}, {"SEARCH.EARLY_STOP": 0.5}, "SEARCH.EARLY_STOP=0.5"),
        (EPOCHS, {**NEVER, **STEPS}, "SOLVER.STEPS do not follow the length of a training"),
        ({**EPOCHS, "schedule": "steps"}, NEVER, "SOLVER.STEPS do not follow"),
        ({**EPOCHS, "schedule": {"choices": ["cosine", "steps"]}}, NEVER, "SOLVER.STEPS do not"),
        (
            {
                **EPOCHS,
                "ema": {"choices": [True, False]},
                "schedule": {"choices": ["cosine", "exponential"], "when": {"ema": True}},
            },
            {**NEVER, **STEPS},
            "SOLVER.STEPS do not",
        ),
    ],
)
@pytest.mark.parametrize("network", [{}, NETWORK])
def test_lengths_that_cannot_be_compared_are_refused(
    tmp_path: Path,
    recipe: dict[str, Any],
    opts: dict[str, Any],
    message: str,
    network: dict[str, Any],
) -> None:
    setup = _setup(tmp_path, {"recipe": recipe, **network}, opts)
    with pytest.raises(SearchError, match=message):
        check_task(setup)


@pytest.mark.parametrize(
    ("recipe", "opts"),
    [
        (EPOCHS, NEVER),
        ({**EPOCHS, "schedule": {"choices": ["cosine", "exponential"]}}, {**NEVER, **STEPS}),
        ({**EPOCHS, **LR}, {"SEARCH.FIX": ["epochs", 8], **STEPS}),
        ({"epochs": 8, **LR}, STEPS),
        (LR, STEPS),
    ],
)
def test_other_lengths_are_allowed(
    tmp_path: Path, recipe: dict[str, Any], opts: dict[str, Any]
) -> None:
    check_task(_setup(tmp_path, {"recipe": recipe}, opts))
