"""The metadata of an exported file: preprocessing, classes, version, hash of the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from fbnetv3.version import package_version
from fbnetv3.zoo.classifier import Classifier


def export_metadata(classifier: Classifier, input_type: str) -> dict[str, str]:
    """Returns the metadata of an exported classifier.

    Args:
        classifier: Classifier that is exported.
        input_type: Type of the images that the file takes: ``float`` or ``uint8``.

    Returns:
        Text by key. The texts of five keys are JSON: ``classes`` (list of names), ``resolution``
        and ``resize`` (sides in pixels), ``mean`` and ``std`` (RGB, of pixels in [0, 1]; the graph
        normalises by them). The others are plain: ``source`` (origin of the weights), ``input``
        (layout, type and range of the images), ``interpolation``, ``fbnetv3`` (version of this
        package) and ``weights_sha256`` (see :func:`weights_hash`).
    """
    rule = classifier.transform.rule
    pixels = "uint8 in 0..255" if input_type == "uint8" else "float32 in 0..1"
    values: Mapping[str, Any] = {
        "classes": list(classifier.classes),
        "resolution": rule["resolution"],
        "resize": rule["resize"],
        "mean": rule["mean"],
        "std": rule["std"],
    }
    return {
        "source": classifier.source,
        "input": f"RGB, N x 3 x H x W, {pixels}; normalised in the graph",
        "interpolation": rule["interpolation"],
        "fbnetv3": package_version(),
        "weights_sha256": weights_hash(classifier.model),
        **{key: json.dumps(value) for key, value in values.items()},
    }


def weights_hash(model: nn.Module) -> str:
    """Returns the sha256 of names, types, shapes and values of a state dict, in hexadecimal.

    Unlike the hash of a file, it does not depend on the format of the file or on metadata: a
    checkpoint and the weights that were exported from it have the same hash.

    Args:
        model: The network; its state dict is hashed in the order of the names.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
