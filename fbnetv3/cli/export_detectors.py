"""The part of ``fbnetv3-export`` that writes detectors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fbnetv3.errors import FBNetError
from fbnetv3.requires import require_detectron2

if TYPE_CHECKING:
    from fbnetv3.detection.detector import Detector
    from fbnetv3.export.detectors.run import DetectorOptions, ExportedDetector

COLUMNS = ("format", "file", "MB", "difference", "ms")


def is_detector(model: str | None, weights: Path | None) -> bool:
    """Returns whether a command line asks for a detector.

    Args:
        model: Value of --model.
        weights: File of --weights.

    Raises:
        WeightsFileError: The file cannot be read.
    """
    from fbnetv3.weights.detector_records import is_detector_name
    from fbnetv3.weights.load import read_weights

    if weights is None:
        return model is not None and is_detector_name(model)
    return read_weights(weights).is_detector


def export_detectors(arguments: argparse.Namespace, weights: Path | None, name: str) -> int:
    """Exports a detector, prints a table of the files, and returns the exit status, 0.

    Args:
        arguments: Command line of ``fbnetv3-export``.
        weights: File of the weights; None: ``--model`` names weights of the zoo.
        name: Default prefix of the files' names.

    Raises:
        FBNetError: The detector, a format or the data cannot be used, or a file does not compute
            what PyTorch computes.
    """
    require_detectron2()
    from fbnetv3.export.detectors.formats import check_formats
    from fbnetv3.export.detectors.run import export_detector

    calibrated = arguments.calibration is not None
    formats = check_formats(arguments.format, calibrated=calibrated)
    detector = _detector(arguments.model, weights)
    options = _options(arguments)
    scores = ["AP"] if arguments.data else []
    table = Table(*COLUMNS, *scores, box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    name = arguments.name or name
    for exported in export_detector(detector, formats, arguments.output, name, options):
        if exported.path is not None:
            print(f"{exported.path}: checked", file=sys.stderr, flush=True)
        table.add_row(*_row(exported)[: len(table.columns)])
    Console(width=200, soft_wrap=True).print(table)
    return 0


def _detector(model: str | None, weights: Path | None) -> Detector:
    from fbnetv3.detection.detector import detector_from_file
    from fbnetv3.zoo.detectors import get_detector

    if weights is None:
        assert model is not None
        return get_detector(model)
    if model is not None:
        raise FBNetError(
            f"--model {model} does not apply: {weights} holds a detector, whose config is "
            "stored with it; leave out --model"
        )
    return detector_from_file(weights)


def _options(arguments: argparse.Namespace) -> DetectorOptions:
    from fbnetv3.export.detectors.data import open_calibration, open_data
    from fbnetv3.export.detectors.run import DetectorOptions

    calibration, data = (
        None if name is None else opened(name)
        for name, opened in ((arguments.calibration, open_calibration), (arguments.data, open_data))
    )
    return DetectorOptions(
        arguments.input, calibration, arguments.calibration_images, data, arguments.seed
    )


def _row(exported: ExportedDetector) -> tuple[str, ...]:
    def text(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    if exported.agreement is not None:
        difference = f"{100 * exported.agreement:.1f}% of objects agree"
    elif exported.box_difference is not None:
        score = text(exported.score_difference, ".2g")
        difference = f"{exported.box_difference:.2g} px, {score}"
    else:
        difference = ""
    return (
        exported.format,
        "" if exported.path is None else str(exported.path),
        text(exported.megabytes, ".2f"),
        difference,
        text(exported.milliseconds, ".2f"),
        text(exported.ap, ".2f"),
    )
