"""Plots of a training, curves.png."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fbnetv3.engine.curves import draw_curves, plot_curves

CLASSIFICATION = [
    {"iteration": i, "loss": 2.0 / (i + 1), "lr": 0.1, "val/top1": 10.0 * i, "val/top1_ema": 9.0}
    for i in range(5)
]
DETECTION = [{"iteration": i, "total_loss": 1.0, "bbox/AP": 10.0 + i} for i in range(5)]


def draw(folder: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    metrics, picture = folder / "metrics.json", folder / "curves.png"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plot_curves(metrics, picture)
    with Image.open(picture) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("rows", [CLASSIFICATION, DETECTION, CLASSIFICATION[:1], []])
def test_a_png_is_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    assert draw(tmp_path, rows).shape[1] > 1000


def test_averaged_weights_are_drawn(tmp_path: Path) -> None:
    without = [{k: v for k, v in row.items() if k[-4:] != "_ema"} for row in CLASSIFICATION]
    assert (draw(tmp_path, CLASSIFICATION) != draw(tmp_path, without)).any()


def test_losses_of_the_validation_are_drawn(tmp_path: Path) -> None:
    rows = [{**row, "val/loss": 1.0, "val/loss_ema": 1.5} for row in CLASSIFICATION]
    assert (draw(tmp_path, CLASSIFICATION) != draw(tmp_path, rows)).any()


def test_non_finite_numbers(tmp_path: Path) -> None:
    draw(tmp_path, [{**row, "loss": float("nan")} for row in CLASSIFICATION])


def test_pyplot_is_not_imported(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    draw(tmp_path, CLASSIFICATION)
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize("rows", [CLASSIFICATION, DETECTION, [{"iteration": 0, "val/mAP": 1.0}]])
def test_axes_have_names_with_units_and_legends_cover_no_curve(rows: list[dict[str, Any]]) -> None:
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    draw_curves(figure, [{**row, "val/loss": 1.0} for row in rows], "run/metrics.json: training")
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "run/metrics.json: training"
    assert all(axes.get_xlabel() == "iteration (steps of the optimizer)" for axes in figure.axes)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[:2] == ["loss", "learning rate"]
    assert labels[2] in ("validation top-1 (%)", "validation mAP (%)", "validation box AP (%)")
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None:
            frame = legend.get_window_extent()
            assert frame.y0 >= axes.get_window_extent().y1 - 1
            assert frame.x1 <= figure.bbox.x1
            assert not any(frame.overlaps(text.get_window_extent()) for text in figure.texts)


def test_a_title_names_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(
        "fbnetv3.engine.curves.draw_curves", lambda figure, rows, title: titles.append(title)
    )
    folder = tmp_path / "my$run"
    folder.mkdir()
    draw(folder, CLASSIFICATION)
    assert titles == [r"my\$run/metrics.json: training up to iteration 5"]
