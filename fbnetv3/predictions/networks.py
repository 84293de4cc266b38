"""The network of a command: found by its name or file, built, and moved to a device.

:func:`check_source` reports mistakes before torch is imported, which takes seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fbnetv3.errors import first_line
from fbnetv3.predictions.errors import PredictError
from fbnetv3.requires import require_detectron2
from fbnetv3.weights.run_folder import weights_in

# torch is imported where it is needed
if TYPE_CHECKING:
    from fbnetv3.detection.detector import Detector
    from fbnetv3.zoo.classifier import Classifier


def find_weights(path: Path) -> Path:
    """Returns the path itself if it is a file, or the weights of the run if it is a run's folder.

    Raises:
        FBNetError: The path does not exist, or the folder has no weights.
    """
    if not path.exists():
        raise PredictError(f"cannot read weights {path}: No such file or directory; check the path")
    return weights_in(path) if path.is_dir() else path


def check_source(model: str | None, weights: Path | None) -> Path | None:
    """Checks that a network exists, as far as this is possible without torch.

    Args:
        model: Name of weights of the zoo, or of the architecture of ``weights``.
        weights: File of weights or folder of a run; None: the weights ``model`` of the zoo.

    Returns:
        The file of weights; None if ``weights`` is None.

    Raises:
        FBNetError: The file is missing, the folder has no weights, or the zoo has no such weights.
    """
    if weights is not None:
        return find_weights(weights)
    from fbnetv3.weights.detector_records import find_detector, is_detector_name
    from fbnetv3.weights.records import find_record

    if model is not None:
        (find_detector if is_detector_name(model) else find_record)(model)
    return None


def load_network(
    model: str | None = None, weights: Path | None = None, device: str | None = None
) -> Classifier | Detector:
    """Builds a classifier or a detector with its weights.

    Args:
        model: Name of weights of the zoo; with ``weights``, the name of their architecture if
            their file does not contain it.
        weights: File of weights, or folder of a run; None: the weights ``model`` of the zoo.
        device: PyTorch device; None: ``cuda`` if available, else ``cpu``.

    Raises:
        FBNetError: The weights or the device cannot be used.
    """
    path = check_source(model, weights)
    network = _detector(model, path) or _classifier(model, path)
    _to_device(network, device)
    return network


def _classifier(model: str | None, weights: Path | None) -> Classifier:
    from fbnetv3.zoo.classifier import from_file, from_zoo

    if weights is not None:
        return from_file(weights, model)
    if model is None:
        raise PredictError("there is neither the name of a model nor a file of weights; give one")
    return from_zoo(model)


def _detector(model: str | None, weights: Path | None) -> Detector | None:
    """Builds the detector; returns None if the weights are of a classifier."""
    from fbnetv3.weights.detector_records import is_detector_name
    from fbnetv3.weights.load import read_weights

    if weights is None:
        if model is None or not is_detector_name(model):
            return None
    elif not read_weights(weights).is_detector:
        return None
    elif model is not None:
        raise PredictError(
            f"--model {model} does not apply: {weights} holds a detector with its config; leave "
            "out --model"
        )
    require_detectron2()
    from fbnetv3.detection.detector import detector_from_file
    from fbnetv3.zoo.detectors import get_detector

    return get_detector(str(model)) if weights is None else detector_from_file(weights)


def _to_device(network: Classifier | Detector, device: str | None) -> None:
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        network.model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise PredictError(f"cannot use device {device!r}: {reason}; try --device cpu") from error
