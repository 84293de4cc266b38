"""Maps this project's tensor names to those in the files of other projects.

This project's names follow the module tree: ``backbone.stages.S.I.{pw,dw,pwl}.{conv,bn}``,
``.se.{reduce,expand}`` and ``head.fc``, with stage S and block I. ``pw`` is the expansion, ``dw``
the depthwise convolution and ``pwl`` the projection. The mappings are one to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fbnetv3.arch import Arch
from fbnetv3.weights.errors import LoadError

_STAGES = "backbone.stages."
_HEAD = "head.fc."
_PUBLISHED_SE = {"reduce": "se.0.conv", "expand": "se.1"}
_TIMM_SE = {"reduce": "conv_reduce", "expand": "conv_expand"}
# timm's names of a block's modules, with and without an expansion; timm numbers the batch norms.
_TIMM_FULL = {
    "pw.conv": "conv_pw",
    "pw.bn": "bn1",
    "dw.conv": "conv_dw",
    "dw.bn": "bn2",
    "pwl.conv": "conv_pwl",
    "pwl.bn": "bn3",
}
_TIMM_SEPARABLE = {"dw.conv": "conv_dw", "dw.bn": "bn1", "pwl.conv": "conv_pw", "pwl.bn": "bn2"}
_TIMM_STEM = {"conv": "conv_stem", "bn": "bn1"}
_TIMM_POOL = {"pw.conv": "conv", "pw.bn": "bn1"}


def _split(key: str) -> tuple[tuple[int, int], str]:
    """Splits ``backbone.stages.S.I.REST`` into ``(S, I), REST``."""
    stage, index, rest = key.removeprefix(_STAGES).split(".", 2)
    return (int(stage), int(index)), rest


def published_names(keys: Iterable[str]) -> dict[str, str]:
    """Maps tensor names to those of the published FBNet files.

    In the published files, block I of stage S is ``xif{S}_{I}``, squeeze-and-excitation is
    ``se.se.0.conv`` and ``se.se.1``, and the classifier is a 1x1 convolution.

    Args:
        keys: This project's tensor names, as in ``model.state_dict()``.

    Returns:
        Published names by this project's names.
    """
    return {key: _published(key) for key in keys}


def _published(key: str) -> str:
    if key.startswith(_HEAD):
        return key.replace(_HEAD, "head.conv.")
    if not key.startswith(_STAGES):
        return key
    (stage, index), rest = _split(key)
    module, _, last = rest.rpartition(".")
    if module.startswith("se."):
        rest = f"se.{_PUBLISHED_SE[module.removeprefix('se.')]}.{last}"
    return f"{_STAGES}xif{stage}_{index}.{rest}"


def timm_names(arch: Arch, keys: Iterable[str], timm_keys: Iterable[str]) -> dict[str, str]:
    """Maps tensor names to timm's.

    timm divides the same sequence of blocks into other stages. Blocks are therefore paired in
    order, and the modules inside a block by their roles.

    Args:
        arch: Architecture of the model.
        keys: This project's tensor names, as in ``model.state_dict()``.
        timm_keys: Tensor names in timm's file; only their block numbers are used.

    Returns:
        timm's names by this project's names.

    Raises:
        LoadError: The number of blocks differs.
    """
    keys = list(keys)
    places = [(layer.stage, layer.index) for layer in arch.layers()]
    split = [key.split(".") for key in timm_keys if key.startswith("blocks.")]
    blocks = sorted({(int(stage), int(index)) for _, stage, index, *_ in split})
    if len(blocks) != len(places) - 1:
        raise LoadError(
            f"timm weights of {len(blocks)} blocks do not fit {arch.name}, which has "
            f"{len(places) - 1}; they belong to another architecture"
        )
    block_of = dict(zip(places[1:], blocks, strict=True))
    expanded = {_split(k)[0] for k in keys if k.startswith(_STAGES) and ".pw.conv." in k}
    return {key: _timm(key, block_of, expanded, places) for key in keys}


def _timm(
    key: str,
    block_of: Mapping[tuple[int, int], tuple[int, int]],
    expanded: set[tuple[int, int]],
    places: list[tuple[int, int]],
) -> str:
    if not key.startswith(_STAGES):
        return key.replace(_HEAD, "classifier.")
    place, rest = _split(key)
    module, _, last = rest.rpartition(".")
    if place == places[0]:
        return f"{_TIMM_STEM[module]}.{last}"
    # The last layer pools. timm counts its first conv as a block; the second one is conv_head.
    if place == places[-1] and module == "pwl.conv":
        return f"conv_head.{last}"
    block = "blocks.{}.{}".format(*block_of[place])
    if module.startswith("se."):
        return f"{block}.se.{_TIMM_SE[module.removeprefix('se.')]}.{last}"
    roles = _TIMM_FULL if place in expanded else _TIMM_SEPARABLE
    if place == places[-1]:
        roles = _TIMM_POOL
    return f"{block}.{roles.get(module, module)}.{last}"
