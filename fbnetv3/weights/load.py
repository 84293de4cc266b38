"""Loading weights from the zoo, from Hugging Face's hub or from a file into a model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fbnetv3.arch import Arch
from fbnetv3.weights.classes import class_names, class_order, other_classes
from fbnetv3.weights.converters import LoadSummary, load_state_dict
from fbnetv3.weights.detector_records import checked_file, find_detector, is_detector_name
from fbnetv3.weights.download import ZOO_SCHEME, fetch
from fbnetv3.weights.errors import LoadError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.hub import fetch_from_hub, is_hub_address
from fbnetv3.weights.networks import other_strides
from fbnetv3.weights.records import IMAGENET_CLASSES, find_record

# Modules of detectron2's RetinaNet and R-CNNs, which no classifier has
_DETECTOR_HEADS = ("head.cls_score.", "head.bbox_pred.", "roi_heads.", "proposal_generator.")
IGNORE_CLASS_NAMES = "--ignore-class-names (in Python: ignore_class_names=True)"


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights.

    Attributes:
        tensors: Tensors by name, on the CPU.
        classes: Class names in the order of the classifier's rows; None if they are not known.
        source: Address or file, with the entry that the tensors are from: ``run.pth (model_ema)``.
        metadata: Metadata of the file.
    """

    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_detector(self) -> bool:
        """Whether the weights are those of a detector of detectron2."""
        return self.metadata.get("task") == "detection" or any(
            key.startswith((*_DETECTOR_HEADS, "backbone.bottom_up.", "backbone.fpn_"))
            for key in self.tensors
        )


def read_weights(uri: str | os.PathLike[str]) -> Weights:
    """Reads weights of the zoo or of Hugging Face's hub, downloaded on first use, or from a file.

    Args:
        uri: ``zoo://NAME[.TAG]`` of a classifier or a detector, ``hf://OWNER/NAME[@REVISION]`` of a
            repository of the hub, or the path of a file or run folder (see
            :func:`fbnetv3.weights.files.read_tensors`).

    Raises:
        ZooError: The zoo has no such weights, or they cannot be downloaded or read.
        MissingPackageError: ``hf://`` needs huggingface_hub, which is not installed.
    """
    uri = os.fspath(uri)
    name = uri.removeprefix(ZOO_SCHEME)
    if name == uri:
        tensors, metadata = read_tensors(fetch_from_hub(uri) if is_hub_address(uri) else uri)
        entry = f" ({metadata['weights']})" if "weights" in metadata else ""
        return Weights(tensors, class_names(metadata), f"{uri}{entry}", metadata)
    if is_detector_name(name):
        tensors, metadata = read_tensors(checked_file(find_detector(name)))
        return Weights(tensors, class_names(metadata), uri, metadata)
    record = find_record(name)
    tensors, metadata = read_tensors(fetch(record))
    # ImageNet's class folders are named by WordNet ids: only the number of classes is comparable.
    classes = None if record.classes == IMAGENET_CLASSES else record.classes
    normalisation = {"mean": record.mean, "std": record.std}
    return Weights(tensors, classes, uri, {**metadata, **normalisation})


def compare_classes(
    weights: Weights, classes: Sequence[str] | None
) -> tuple[list[int] | None, str]:
    """Compares the classes of weights with those of the data by name.

    Args:
        weights: The weights.
        classes: Class names of the data; None: nothing is compared.

    Returns:
        ``(order, difference)``: the result of :func:`class_order`, None if names are not known or
        differ; and how the classes differ, "" if they do not differ or are not known.
    """
    if classes is None or weights.classes is None:
        return None, ""
    order = class_order(weights.classes, classes)
    return order, "" if order is not None else other_classes(weights.classes, classes)


def refusal(source: str, saved: Sequence[str] | None, data: Sequence[str]) -> LoadError:
    """Returns the error about weights whose classes are not those of the data.

    Args:
        source: File or address of the weights.
        saved: Class names of the weights.
        data: Class names of the data.
    """
    saved = saved or ()
    ignore = ", or compare the number of classes alone with " + IGNORE_CLASS_NAMES
    return LoadError(
        f"{source}: {other_classes(saved, data)}; use the data set of the weights"
        f"{ignore if len(saved) == len(data) else ''}"
    )


def load_weights(
    model: nn.Module,
    uri: str | os.PathLike[str],
    *,
    allow_new_head: bool = False,
    classes: Sequence[str] | None = None,
) -> LoadSummary:
    """Loads weights into a model; if one tensor does not fit, none is loaded.

    Args:
        model: Model whose tensors are replaced.
        uri: ``zoo://NAME[.TAG]``, ``hf://OWNER/NAME[@REVISION]``, or the path of a file or of a run
            folder; see :func:`read_weights`. Averaged (EMA) weights are preferred to raw weights.
        allow_new_head: Whether to keep the model's classifier if the weights have other classes.
        classes: Class names of the model's outputs. If the weights have the same names in another
            order, the rows of the classifier are reordered; other names do not fit the model. None:
            only the number of classes is compared, as for weights without names.

    Returns:
        A summary of the loaded, zero-filled and skipped tensors; ``str(summary)`` is one line.

    Raises:
        ZooError: The weights cannot be downloaded or read, do not fit the model, or are a detector.
        MissingPackageError: ``hf://`` needs huggingface_hub, which is not installed.
    """
    weights = read_weights(uri)
    if weights.is_detector:
        raise LoadError(f"{weights.source} holds a detector; use the weights of a classifier")
    order, difference = compare_classes(weights, classes)
    if classes is not None and difference and not allow_new_head:
        raise refusal(weights.source, weights.classes, classes)
    summary = load_state_dict(
        model,
        weights.tensors,
        allow_new_head=allow_new_head,
        new_head=bool(difference),
        order=order,
        source=weights.source,
    )
    return _with_differences(summary, weights, model, difference)


def _with_differences(
    summary: LoadSummary, weights: Weights, model: nn.Module, other_classes: str
) -> LoadSummary:
    arch = getattr(model, "arch", None)
    return dataclasses.replace(
        summary,
        other_classes=other_classes or summary.other_classes,
        other_network=other_strides(weights.metadata, arch) if isinstance(arch, Arch) else "",
    )
