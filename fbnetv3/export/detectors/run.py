"""Exports a detector to files, runs each file in its own runtime, and compares the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fbnetv3.data import read_image
from fbnetv3.detection.coco import CocoDataset
from fbnetv3.detection.detector import Detector
from fbnetv3.export.check import megabytes, scoring, time_image
from fbnetv3.export.detectors.check import (
    ImageRun,
    average_precision,
    compare,
    compare_quantized,
    in_image,
    in_torch,
)
from fbnetv3.export.detectors.data import images_to_compare, pixels_of, sample
from fbnetv3.export.detectors.formats import DetectorFormat
from fbnetv3.export.detectors.job import DetectorJob
from fbnetv3.export.detectors.metadata import detector_metadata
from fbnetv3.export.detectors.network import DetectorNetwork
from fbnetv3.export.files import write_checked

# A float32 file is compared with torch on at most 8 images, a file with 8-bit integers on at most
# 32 images of the data set and on the two crops that images_to_compare adds.
_COMPARED, _COMPARED_INT8 = 8, 32


@dataclass(frozen=True)
class ExportedDetector:
    """A file that was written and checked, or torch itself for comparison.

    Attributes:
        format: Name of the format, or ``torch``.
        path: The file; None for torch.
        megabytes: Size of the file in units of 10^6 bytes; None for torch.
        box_difference: Largest difference of a coordinate of a box from torch's, in pixels of the
            image. None for 8-bit integers and for torch.
        score_difference: Largest difference of a score from torch's. None for 8-bit integers and
            for torch.
        agreement: For 8-bit integers, share in [0, 1] of the objects with a score of 0.5 or more
            (the file's and torch's together) that both the file and torch detect; None for float32
            and for torch.
        milliseconds: Median time of one image on ``torch.get_num_threads()`` threads.
        ap: COCO's AP in percent; None without a data set to score on.
    """

    format: str
    path: Path | None = None
    megabytes: float | None = None
    box_difference: float | None = None
    score_difference: float | None = None
    agreement: float | None = None
    milliseconds: float | None = None
    ap: float | None = None


@dataclass(frozen=True)
class DetectorOptions:
    """How a detector is exported.

    Attributes:
        input_type: ``float`` for pixels in [0, 1], ``uint8`` for pixels in [0, 255].
        calibration: Data set from which the ranges of 8-bit integers are measured.
        calibration_images: Number of calibration images, drawn with ``seed``; a smaller data set
            is used as a whole.
        data: Data set on which each file is scored, and compared with torch.
        seed: Seed of the drawn images.
    """

    input_type: str = "float"
    calibration: CocoDataset | None = None
    calibration_images: int = 512
    data: CocoDataset | None = None
    seed: int = 0


def export_detector(
    detector: Detector,
    formats: Sequence[DetectorFormat],
    folder: Path,
    name: str,
    options: DetectorOptions,
) -> Iterator[ExportedDetector]:
    """Writes a detector in each format, and yields each file once it was compared with torch.

    An earlier file of the same name is replaced only after the comparison. If there is a data set
    to score on, the result of torch itself is yielded first.

    Args:
        detector: Detector to export, on the CPU.
        formats: Formats, from ``check_formats``.
        folder: Folder of the files, which is created.
        name: Prefix of the files' names.
        options: Input, calibration and data.

    Raises:
        ExportError: The detector is no RetinaNet, the data to score on have other classes, a file
            cannot be written, or a file fails in its runtime or computes other boxes than torch;
            such a file is discarded. Also if a file cannot be scored; such a file stays.
        WriteError: The folder cannot be written to.
        DataError: An image cannot be read.
    """
    job = _job(detector, options)
    images = _images(options)
    if options.data is not None:
        yield _torch_itself(detector, job.network, options.data, images[0])
    for format in formats:
        path = folder / f"{name}{format.suffix}"
        check = partial(_measure, format, detector, job.network, images)
        exported, run = write_checked(format.name, partial(format.write, job), path, check)
        exported = replace(exported, path=path)
        if options.data is not None:
            with scoring(format.name, path, options.data.name):
                exported = replace(exported, ap=average_precision(run, detector, options.data))
        yield exported


def _job(detector: Detector, options: DetectorOptions) -> DetectorJob:
    """Returns the network with its calibration images and metadata."""
    network = DetectorNetwork(detector, options.input_type)
    side = max(64, detector.short_edge)
    example = network.example(side, side * 4 // 3, options.seed)
    calibration: list[np.ndarray] = []
    if options.calibration is not None:
        files = sample(options.calibration, options.calibration_images, options.seed)
        calibration = [pixels_of(detector, network, read_image(file)) for file in files]
    return DetectorJob(network, example, detector_metadata(detector, network), calibration)


def _images(options: DetectorOptions) -> list[Image.Image]:
    """Returns the images to compare on: from the scored data, the calibration data, or random."""
    data = options.data or options.calibration
    files = [] if data is None else sample(data, _COMPARED_INT8, options.seed)
    return images_to_compare(files, options.seed)


def _torch_itself(
    detector: Detector, network: DetectorNetwork, data: CocoDataset, image: Image.Image
) -> ExportedDetector:
    def run(pixels: np.ndarray) -> None:
        with torch.inference_mode():
            network(torch.from_numpy(pixels))

    ap = average_precision(in_torch(detector), detector, data)
    milliseconds = time_image(run, pixels_of(detector, network, image))
    return ExportedDetector("torch", milliseconds=milliseconds, ap=ap)


def _measure(
    format: DetectorFormat,
    detector: Detector,
    network: DetectorNetwork,
    images: Sequence[Image.Image],
    file: Path,
) -> tuple[ExportedDetector, ImageRun]:
    """Runs a file in its runtime; compares and times it.

    Returns:
        The measurements, and the function that runs the file on images of any size.
    """
    load = format.load(file)
    run = in_image(load, detector, network)
    box = score = agreement = None
    if format.quantized:
        agreement = compare_quantized(run, detector, images)
    else:
        difference = compare(run, detector, network, images[:_COMPARED])
        box, score = difference.box, difference.score
    milliseconds = time_image(load, pixels_of(detector, network, images[0]))
    exported = ExportedDetector(
        format.name, file, megabytes(file), box, score, agreement, milliseconds
    )
    return exported, run
