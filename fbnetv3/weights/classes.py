"""The class names of weights: comparing them with the data's, and reordering classifier rows.

A classifier has one row per class, in the order of the data that it was trained on. Weights fit
data whose classes have the same names; :func:`class_order` finds the row of each class of the data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fbnetv3.data.errors import some

_SHOWN = 10  # largest number of names that a message lists


def class_names(metadata: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the class names in the metadata of weights; None if there are none.

    Args:
        metadata: Metadata of a file of weights, or the state of a checkpoint. Checkpoints of other
            programs may have something else under ``classes``, which is ignored.
    """
    saved = metadata.get("classes")
    if not isinstance(saved, (list, tuple)) or not saved:
        return None
    is_named = all(isinstance(name, (str, int)) for name in saved)
    return tuple(map(str, saved)) if is_named else None


def class_order(saved: Sequence[str], data: Sequence[str]) -> list[int] | None:
    """Returns the row in the weights of each class of the data.

    Args:
        saved: Class names of the weights, in the order of their rows.
        data: Class names of the data.

    Returns:
        A list with ``saved[order[i]] == data[i]``; None if the sets of names differ. If
        names repeat, both lists must be equal, since a repeated name has no unique row.
    """
    if list(saved) == list(data):
        return list(range(len(data)))
    is_unique = len(set(data)) == len(data)
    if not is_unique or sorted(saved) != sorted(data):
        return None
    places = {name: place for place, name in enumerate(saved)}
    return [places[name] for name in data]


def other_classes(saved: Sequence[str], data: Sequence[str]) -> str:
    """Describes how the classes of weights differ from those of the data.

    The text has the first names of both lists and, if one has more than 10, some of the names that
    only one of them has.
    """
    lists = f"the weights have the classes {_listed(saved)}, but the data has {_listed(data)}"
    if max(len(saved), len(data)) <= _SHOWN:
        return lists
    parts = []
    for where, names, others in (("weights", saved, data), ("data", data, saved)):
        only = [name for name in names if name not in set(others)]
        if only:
            parts.append(f"only in the {where}: {some(only)}")
    return "; ".join([lists, *parts])


def _listed(names: Sequence[str]) -> str:
    return f"({len(names)}: {some(names, _SHOWN)})"


def distinct_names(names: Sequence[str], suffixes: Iterable[object]) -> list[str]:
    """Returns class names made unique, for the rows of a table.

    Args:
        names: Class names, some of which may be equal.
        suffixes: A distinct value for each name, such as the category id. It is appended to the
            names that repeat: ``cell (7)``.
    """
    pairs = list(zip(names, suffixes, strict=True))
    repeated = {name for name in names if list(names).count(name) > 1}
    return [f"{name} ({suffix})" if name in repeated else name for name, suffix in pairs]


def reorder_rows(tensor: Tensor, order: Sequence[int], groups: int = 1) -> Tensor:
    """Returns a tensor whose rows have another order of classes.

    Args:
        tensor: Weight or bias of a layer, (groups * classes * n, ...). Within a group, the n rows
            of a class follow one another; n is 1 in a classifier.
        order: Index in ``tensor`` of each class of the result.
        groups: Number of groups that each have all classes, such as the anchors of a RetinaNet.
    """
    split = tensor.unflatten(0, (groups, len(order), -1))
    return split[:, list(order)].reshape(tensor.shape)


def reorder_classifier(
    tensors: Mapping[str, Tensor], order: Sequence[int], heads: Collection[str]
) -> dict[str, Tensor]:
    """Returns the tensors of a classifier with the rows of its classes in another order.

    Args:
        tensors: Tensors by name.
        order: Index in ``tensors`` of each class of the result.
        heads: Names of the layers that compute the logits, such as ``head.fc``.
    """
    return {
        key: reorder_rows(value, order) if key.rpartition(".")[0] in heads else value
        for key, value in tensors.items()
    }
