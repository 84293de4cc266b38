"""What an exported file says about itself: preprocessing, classes, version, hash of the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from fbnetv3.version import package_version
from fbnetv3.zoo.classifier import Classifier


def export_metadata(classifier: Classifier, input_type: str) -> dict[str, str]:
    """Returns the metadata of an exported classifier; every value is a string, most are JSON.

    The keys are ``source``, ``classes``, ``resolution`` and ``resize`` (pixels), ``interpolation``,
    ``input`` (what the file takes), ``mean`` and ``std`` (which the graph applies), ``fbnetv3``
    (version) and ``weights_sha256`` (see :func:`weights_hash`).

    Args:
        classifier: Classifier that is exported.
        input_type: ``float`` or ``uint8``.
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

    Unlike the hash of a file it depends on the values alone, so that a checkpoint and the weights
    that were exported from it agree.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
