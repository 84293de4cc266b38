"""Loading weights of the zoo or from a file into a model."""

from __future__ import annotations

import os

from torch import nn

from fbnetv3.weights.converters import LoadSummary, load_state_dict
from fbnetv3.weights.download import ZOO_SCHEME, fetch
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import find_record


def load_weights(
    model: nn.Module, uri: str | os.PathLike[str], *, allow_new_head: bool = False
) -> LoadSummary:
    """Loads weights of the zoo or from a file into a model, strictly.

    Args:
        model: Model whose tensors are replaced.
        uri: ``zoo://NAME[.TAG]``, or the path of a .safetensors, .pth or checkpoint file. From a
            checkpoint with EMA weights, these are loaded.
        allow_new_head: Whether to keep the model's classifier if its number of classes differs.

    Returns:
        A summary of the loaded, derived and skipped tensors; ``str(summary)`` is one line.

    Raises:
        ZooError: The weights cannot be downloaded or read, or do not fit the model.
    """
    uri = os.fspath(uri)
    path = uri
    if uri.startswith(ZOO_SCHEME):
        path = str(fetch(find_record(uri.removeprefix(ZOO_SCHEME))))
    tensors, _ = read_tensors(path)
    return load_state_dict(model, tensors, allow_new_head=allow_new_head, source=uri)
