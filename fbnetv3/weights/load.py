"""Loading weights of the zoo or of a file into a model."""

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
    """Loads weights from the zoo or from a file into a model, strictly.

    Args:
        model: to load into.
        uri: ``zoo://NAME[.TAG]``, or the path of a .safetensors, .pth or checkpoint file (of a
            checkpoint that has EMA weights, these).
        allow_new_head: leave the classifier as it is where it has another number of classes.

    Returns:
        What was loaded, derived and skipped; its ``str`` is one line.

    Raises:
        ZooError: the weights can't be had, read, or do not fit.
    """
    uri = os.fspath(uri)
    path = uri
    if uri.startswith(ZOO_SCHEME):
        path = str(fetch(find_record(uri.removeprefix(ZOO_SCHEME))))
    tensors, _ = read_tensors(path)
    return load_state_dict(model, tensors, allow_new_head=allow_new_head, source=uri)
