"""Exports a classifier to files, runs each file in its own runtime, and compares the outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fbnetv3.data import ImageDataset
from fbnetv3.export.check import (
    compare,
    megabytes,
    order_of_outputs,
    pixel_batches,
    score,
    scoring,
    time_image,
)
from fbnetv3.export.errors import ExportError
from fbnetv3.export.files import write_checked
from fbnetv3.export.formats import Format, get_format
from fbnetv3.export.job import Job, Pixels, Run
from fbnetv3.export.metadata import export_metadata
from fbnetv3.export.network import ExportNetwork
from fbnetv3.zoo.classifier import Classifier

_CHECKED = 64  # calibration images, or random ones, on which a file is compared with torch


@dataclass(frozen=True)
class Exported:
    """A file that was written and, except for Core ML, run and compared with torch.

    Attributes:
        format: Name of the format.
        path: The file, or the folder of a package.
        megabytes: Size of the file and of the files that belong to it, in units of 10^6 bytes.
        difference: Largest absolute difference of a logit from torch's. None: files of this format
            are not run (Core ML), so nothing was compared.
        milliseconds: Median time of one image on ``torch.get_num_threads()`` threads; None: the
            file was not run.
        top1: Accuracy in percent on the data set to score on; None: there is none, or the file was
            not run.
    """

    format: str
    path: Path
    megabytes: float
    difference: float | None = None
    milliseconds: float | None = None
    top1: float | None = None


@dataclass(frozen=True)
class ExportOptions:
    """How a classifier is exported.

    Attributes:
        input_type: ``float`` for pixels in [0, 1], ``uint8`` for pixels in [0, 255].
        calibration: Data set from which the ranges of 8-bit integers are measured.
        calibration_images: Number of calibration images, drawn with ``seed``; a smaller data set
            is used as a whole.
        data: Data set on which each file is scored.
        seed: Seed of the drawn images.
    """

    input_type: str = "float"
    calibration: ImageDataset | None = None
    calibration_images: int = 512
    data: ImageDataset | None = None
    seed: int = 0


def check_formats(names: Sequence[str], options: ExportOptions) -> list[Format]:
    """Returns the formats, if everything that they need is there.

    Raises:
        ExportError: A name is unknown, a package is missing, there are no calibration images, or
            the data set to score on has several classes per image.
    """
    if options.data is not None and options.data.is_multi_label:
        raise ExportError(
            f"{options.data.name}: images have several classes each, but files are scored by "
            "top-1; leave out --data"
        )
    formats = [get_format(name) for name in dict.fromkeys(names)]
    for format in formats:
        missing = format.problem()
        if missing:
            raise ExportError(f"format {format.name} cannot be written: {missing}")
        if format.quantized and options.calibration is None:
            raise ExportError(
                f"format {format.name} needs images of the training set to measure ranges on; "
                "name a data set with --calibration"
            )
    return formats


def export_classifier(
    classifier: Classifier,
    formats: Sequence[Format],
    folder: Path,
    name: str,
    options: ExportOptions,
) -> Iterator[Exported]:
    """Writes a classifier in each format, and yields each file once it was compared with torch.

    An earlier file of the same name is replaced only after the comparison. Files of Core ML are not
    run, and are yielded without a comparison.

    Args:
        classifier: Classifier to export.
        formats: Formats, from :func:`check_formats`.
        folder: Folder of the files, which is created.
        name: Prefix of the files' names.
        options: Input, calibration and data.

    Raises:
        ExportError: The data to score on have other classes; a file cannot be written, fails in
            its runtime or computes other outputs than torch, and is discarded; or a file cannot be
            scored, for example because an image cannot be read, and stays.
        WriteError: The folder cannot be written to.
        DataError: A calibration image cannot be read.
    """
    data = options.data
    order = [] if data is None else order_of_outputs(classifier, data)
    job = _job(classifier, options)
    images = _images_to_compare(job, options.seed)
    for format in formats:
        path = folder / f"{name}{format.suffix}"
        check = partial(_measure, format, job, images)
        exported, run = write_checked(format.name, partial(format.write, job), path, check)
        exported = replace(exported, path=path)
        if run is not None and data is not None:
            with scoring(format.name, path, data.name):
                top1 = score(run, classifier, job.network, data, order)
            exported = replace(exported, top1=top1)
        yield exported


def _job(classifier: Classifier, options: ExportOptions) -> Job:
    """Returns the network with its calibration images and metadata."""
    rule = classifier.transform.rule
    network = ExportNetwork(classifier.model, rule["mean"], rule["std"], options.input_type)
    calibration = None
    if options.calibration is not None:
        data = options.calibration
        sample = data.subset(min(options.calibration_images, len(data)), options.seed)
        calibration = np.concatenate(list(pixel_batches(classifier, network, sample)))
    example = network.example(rule["resolution"], seed=options.seed)
    return Job(network, example, export_metadata(classifier, options.input_type), calibration)


def _images_to_compare(job: Job, seed: int) -> Pixels:
    """Returns up to 64 calibration images, or else random pixels, as the network takes them."""
    if job.calibration is not None:
        return job.calibration[:_CHECKED]
    return np.asarray(job.network.example(job.example.shape[-1], _CHECKED, seed + 1).numpy())


def _measure(format: Format, job: Job, images: Pixels, file: Path) -> tuple[Exported, Run | None]:
    """Runs a file in its runtime; compares and times it.

    Returns:
        The measurements, and the function that runs the file; None: it was not run.
    """
    if format.load is None:
        return Exported(format.name, file, megabytes(file)), None
    run = format.load(file)
    difference = compare(run, job.network, images, quantized=format.quantized)
    milliseconds = time_image(run, images[:1])
    return Exported(format.name, file, megabytes(file), difference, milliseconds), run
