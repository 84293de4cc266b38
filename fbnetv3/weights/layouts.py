"""Maps this project's tensor names to those in the files of other projects.

This project's names follow the module tree: ``backbone.stages.S.I.{pw,dw,pwl}.{conv,bn}``,
``.se.{reduce,expand}`` and ``head.fc``, with stage S and block I. ``pw`` is the expansion, ``dw``
the depthwise convolution and ``pwl`` the projection; ``start`` is the depthwise convolution before
the expansion of a ``uib`` (universal inverted bottleneck), and ``conv`` the k x k convolution of a
``fused`` block or a ``conv``. The mappings are one to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fbnetv3.arch import Arch, Layer
from fbnetv3.weights.errors import LoadError

_STAGES = "backbone.stages."
_HEAD = "head.fc."
_PUBLISHED_SE = {"reduce": "se.0.conv", "expand": "se.1"}
_TIMM_SE = {"reduce": "conv_reduce", "expand": "conv_expand"}
# timm's names of the modules of an mbconv, with an expansion and without (_TIMM_SEPARABLE). timm
# numbers the batch norms of a block in their order.
_TIMM_MBCONV = {
    "pw.conv": "conv_pw",
    "pw.bn": "bn1",
    "dw.conv": "conv_dw",
    "dw.bn": "bn2",
    "pwl.conv": "conv_pwl",
    "pwl.bn": "bn3",
}
_TIMM_SEPARABLE = {"dw.conv": "conv_dw", "dw.bn": "bn1", "pwl.conv": "conv_pw", "pwl.bn": "bn2"}
_TIMM_UIB = {
    "start.conv": "dw_start.conv",
    "start.bn": "dw_start.bn",
    "pw.conv": "pw_exp.conv",
    "pw.bn": "pw_exp.bn",
    "dw.conv": "dw_mid.conv",
    "dw.bn": "dw_mid.bn",
    "pwl.conv": "pw_proj.conv",
    "pwl.bn": "pw_proj.bn",
    "scale": "layer_scale",
}
_TIMM_FUSED = {
    "conv.conv": "conv_exp",
    "conv.bn": "bn1",
    "pwl.conv": "conv_pwl",
    "pwl.bn": "bn2",
}
_TIMM_CONV = {"conv": "conv", "bn": "bn1"}
# a fused block without an expansion, whose only convolution (k x k) is named pwl
_TIMM_SINGLE = {"pwl.conv": "conv", "pwl.bn": "bn1"}
_TIMM_STEM = {"conv": "conv_stem", "bn": "bn1"}
# the expansion of an mbpool
_TIMM_POOL = {"pw.conv": "conv", "pw.bn": "bn1"}
# Modules of the last layer that timm has outside of its blocks, by the op of this layer
_TIMM_HEADS = {
    "mbpool": {"pwl.conv": "conv_head", "pwl.bn": "norm_head"},
    "conv": {"conv": "conv_head", "bn": "bn2"},
}


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
    order, and the modules inside a block by their roles. The first layer is timm's stem, the last
    one its head. If the last layer is an ``mbpool`` with an expansion, timm counts the expansion as
    a block.

    Args:
        arch: Architecture of the model.
        keys: This project's tensor names, as in ``model.state_dict()``.
        timm_keys: Tensor names in timm's file; only their block numbers are used.

    Returns:
        timm's names by this project's names.

    Raises:
        LoadError: The number of blocks differs.
    """
    layers = arch.layers()
    pools_after_conv = layers[-1].op == "mbpool" and layers[-1].mid != layers[-1].c_in
    inner = layers[1:] if pools_after_conv else layers[1:-1]
    split = [key.split(".") for key in timm_keys if key.startswith("blocks.")]
    blocks = sorted({(int(stage), int(index)) for _, stage, index, *_ in split})
    if len(blocks) != len(inner):
        raise LoadError(
            f"timm weights of {len(blocks)} blocks do not fit {arch.name}, which has "
            f"{len(inner)}; they belong to another architecture"
        )
    names = {
        (layer.stage, layer.index): _block_names(layer, "blocks.{}.{}.".format(*block))
        for layer, block in zip(inner, blocks, strict=True)
    }
    stem, last = layers[0], layers[-1]
    names[stem.stage, stem.index] = _TIMM_STEM
    expansion_names = names.get((last.stage, last.index), {}) if pools_after_conv else {}
    names[last.stage, last.index] = {**expansion_names, **_TIMM_HEADS.get(last.op, {})}
    return {key: _timm(key, names) for key in keys}


def _block_names(layer: Layer, block: str) -> dict[str, str]:
    """Returns timm's names of a layer's modules, which begin with ``block``."""
    expands = layer.mid != layer.c_in
    roles = {
        "conv": _TIMM_CONV,
        "uib": _TIMM_UIB,
        "fused": _TIMM_FUSED if expands else _TIMM_SINGLE,
        "mbconv": _TIMM_MBCONV if expands else _TIMM_SEPARABLE,
        "mbpool": _TIMM_POOL,
    }
    squeeze = {f"se.{ours}": f"se.{theirs}" for ours, theirs in _TIMM_SE.items()}
    return {ours: block + theirs for ours, theirs in {**roles.get(layer.op, {}), **squeeze}.items()}


def _timm(key: str, names: Mapping[tuple[int, int], Mapping[str, str]]) -> str:
    if not key.startswith(_STAGES):
        return key.replace(_HEAD, "classifier.")
    place, rest = _split(key)
    module, _, last = rest.rpartition(".")
    return f"{names[place].get(module, module)}.{last}"
