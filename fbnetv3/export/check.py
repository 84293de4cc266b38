"""Checks of exported files in their own runtimes: outputs, accuracy, time, size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from fbnetv3.data import ImageDataset
from fbnetv3.errors import FBNetError, first_line
from fbnetv3.evaluation.outcomes import matching_order
from fbnetv3.export.errors import ExportError
from fbnetv3.export.job import Pixels, Run
from fbnetv3.export.network import ExportNetwork
from fbnetv3.weights.classes import other_classes
from fbnetv3.zoo.classifier import Classifier

TOLERANCE = 1e-3
"""Largest allowed difference from torch's float32 logits, as a share of their mean magnitude.

It does not hold for files with 8-bit integers, which have :data:`MIN_AGREEMENT`.
"""
MIN_AGREEMENT = 0.9
"""Smallest allowed share of images that get torch's class, for files with 8-bit integers."""
_BATCH = 64  # images that are preprocessed and run together
_TIMED, _MAX_SECONDS = 20, 5.0  # timing of an image ends after these calls or seconds


def compare(run: Run, network: ExportNetwork, images: Pixels, *, quantized: bool = False) -> float:
    """Returns the largest absolute difference between the logits of a file and of torch.

    Args:
        run: Function that runs the file.
        network: Network that the file was written from.
        images: Pixels (N, 3, H, W) to compare on, as the network takes them.
        quantized: Whether the file computes with 8-bit integers.

    Raises:
        ExportError: The logits have another shape, are not finite, or differ by more than
            ``TOLERANCE`` (with 8-bit integers instead: the share of images that get torch's class
            is below ``MIN_AGREEMENT``).
    """
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    logits = run(images)
    if logits.shape != expected.shape:
        raise mismatch(f"logits of shape {logits.shape} instead of {expected.shape}")
    difference = float(np.abs(logits - expected).max())
    limit = TOLERANCE * float(np.abs(expected).mean())
    if quantized:
        agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
        if not agreement >= MIN_AGREEMENT or not np.isfinite(difference):
            raise mismatch(
                f"the same class as torch for {100 * agreement:.0f}% of {len(images)} calibration "
                f"images (allowed: {100 * MIN_AGREEMENT:.0f}% or more), and logits that differ by "
                f"up to {difference:.3g} from torch's",
            )
    elif not difference <= limit:  # True for NaN, too
        text = f"logits that differ by up to {difference:.3g} from torch's (allowed: {limit:.3g})"
        raise mismatch(text)
    return difference


def mismatch(text: str) -> ExportError:
    """Returns the error about a file that computes other outputs, which ``text`` describes."""
    return ExportError(
        f"its runtime computes {text}; the file was discarded; use another format, or another "
        "version of the exporter"
    )


def with_format(name: str, error: Exception) -> Exception:
    """Returns the error to raise about a file that did not pass its check, and was discarded.

    Errors of the check and of the runtime get the name of the format; other errors of this package
    stay as they are.
    """
    if isinstance(error, ExportError):
        return ExportError(f"format {name}: {error}")
    if isinstance(error, FBNetError):
        return error
    return ExportError(
        f"format {name}: its runtime fails ({type(error).__name__}: {first_line(error)}); the file "
        "was discarded; choose another format"
    )


def time_image(run: Callable[[Pixels], object], image: Pixels) -> float:
    """Returns the median time of one image in milliseconds, after two calls to warm up."""
    times = []
    for i in range(_TIMED + 2):
        start = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - start)
        if i > 1 and sum(times) > _MAX_SECONDS:
            break
    return 1000 * median(times[2:] or times)


@contextmanager
def scoring(format: str, path: Path, data: str) -> Iterator[None]:
    """Makes any error one about the score alone: the file has passed its check, and stays.

    Args:
        format: Name of the format.
        path: The file.
        data: Name of the data set.

    Raises:
        ExportError: The block raised an exception.
    """
    try:
        yield
    except Exception as error:  # runtimes raise errors of every kind
        is_own = isinstance(error, FBNetError)
        reason = str(error) if is_own else f"{type(error).__name__}: {first_line(error)}"
        raise ExportError(
            f"format {format}: {path} passed the comparison with PyTorch and stays, but it cannot "
            f"be scored on {data} ({reason}); correct the data, or leave out --data"
        ) from error


def order_of_outputs(classifier: Classifier, data: ImageDataset) -> list[int]:
    """Returns for each class of the data its index in the logits, as ``fbnetv3-evaluate`` does.

    Raises:
        ExportError: The classes of the data are not those of the classifier.
    """
    order = matching_order(classifier, data)
    if order is None:
        raise ExportError(
            f"{data.name}: {other_classes(classifier.classes, data.classes)}; give --data with the "
            "classes of the weights"
        )
    return order


def score(
    run: Run,
    classifier: Classifier,
    network: ExportNetwork,
    data: ImageDataset,
    order: Sequence[int],
) -> float:
    """Returns the top-1 accuracy of a file on a data set with one class per image, in percent.

    Args:
        run: Function that runs the file.
        classifier: Classifier whose preprocessing is used.
        network: Network that the file was written from.
        data: Data set.
        order: For each class of the data, its index in the logits.

    Raises:
        DataError: An image cannot be read.
    """
    correct, start = 0, 0
    for pixels in pixel_batches(classifier, network, data):
        predicted = run(pixels)[:, list(order)].argmax(1)
        labels = np.asarray(data.targets[start : start + len(pixels)])
        correct += int((predicted == labels).sum())
        start += len(pixels)
    return 100 * correct / len(data)


def pixel_batches(
    classifier: Classifier, network: ExportNetwork, data: ImageDataset
) -> Iterator[Pixels]:
    """Yields the preprocessed images of a data set in batches, as the network takes them."""
    for start in range(0, len(data), _BATCH):
        indices = range(start, min(start + _BATCH, len(data)))
        images: list[npt.NDArray[np.uint8]] = [
            classifier.transform.pixels(data.image(i)) for i in indices
        ]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        yield network.as_input(pixels).numpy()


def files_of(path: Path) -> list[Path]:
    """Returns a file and the files that belong to it: weights or metadata beside it."""
    beside = (path, path.with_name(f"{path.name}.json"))
    return [
        file
        for file in (*beside, *((path.with_suffix(".bin"),) if path.suffix == ".xml" else ()))
        if file.exists()
    ]


def megabytes(path: Path) -> float:
    """Returns the size of an exported file with the files that belong to it, in 10^6 bytes."""
    files = [
        inner
        for file in files_of(path)
        for inner in (file.rglob("*") if file.is_dir() else (file,))
        if inner.is_file()
    ]
    return sum(file.stat().st_size for file in files) / 1e6
