"""Hypothesis strategies for random architectures."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fbnetv3.arch import Arch, Block

ACTS = st.sampled_from(["hswish", "relu", "relu6", "swish"])
EXPANSIONS = st.one_of(st.integers(1, 6), st.floats(0.5, 6.0).map(lambda e: round(e, 4)))
KERNELS = st.sampled_from([1, 3, 5, 7])


@st.composite
def mbconv_rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "mbconv", "k": draw(KERNELS), "e": draw(EXPANSIONS)}
    row |= {"c": 8 * draw(st.integers(1, 4)), "n": draw(st.integers(1, 3))}
    row |= {"s": draw(st.sampled_from([1, 1, 2])), "act": draw(ACTS)}
    if draw(st.booleans()):
        row["se"] = draw(st.sampled_from(["hsigmoid", "sigmoid"]))
        row["se_ratio"] = draw(st.sampled_from([0.25, 0.5, "0.25/e"]))
        row["se_act"] = draw(ACTS)
    if row["s"] > 1 and draw(st.booleans()):
        # At most one less than k // 2, as in published tables: with less, maps could vanish.
        row["dw_padding"] = draw(st.integers(max(0, row["k"] // 2 - 1), row["k"] // 2))
    row["conv_bias"] = draw(st.booleans())
    # These divide every channel count, which are multiples of 8.
    row["pw_groups"] = draw(st.sampled_from([1, 1, 2, 4]))
    row["pwl_groups"] = draw(st.sampled_from([1, 1, 2, 4]))
    return row


@st.composite
def uib_rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "uib", "k_start": draw(st.sampled_from([0, 3, 5]))}
    row |= {"k_mid": draw(st.sampled_from([0, 3, 5])), "e": draw(EXPANSIONS)}
    row |= {"c": 8 * draw(st.integers(1, 4)), "n": draw(st.integers(1, 3)), "act": draw(ACTS)}
    row["s"] = draw(st.sampled_from([1, 1, 2])) if row["k_start"] or row["k_mid"] else 1
    return row | ({"layer_scale": 0.1} if draw(st.booleans()) else {})


@st.composite
def fused_rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "fused", "k": draw(KERNELS), "e": draw(EXPANSIONS)}
    row |= {"c": 8 * draw(st.integers(1, 4)), "n": draw(st.integers(1, 3)), "act": draw(ACTS)}
    row["s"] = draw(st.sampled_from([1, 1, 2]))
    if draw(st.booleans()):
        row |= {"se": draw(st.sampled_from(["hsigmoid", "sigmoid"])), "se_act": draw(ACTS)}
    return row


@st.composite
def skip_rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "skip", "c": 8 * draw(st.integers(1, 4))}
    row |= {"n": draw(st.integers(1, 2)), "s": draw(st.sampled_from([1, 1, 2]))}
    return row | {"act": draw(ACTS), "conv_bias": draw(st.booleans())}


@st.composite
def conv_rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "conv", "k": draw(KERNELS), "c": 8 * draw(st.integers(1, 4))}
    row |= {"n": draw(st.integers(1, 2)), "s": draw(st.sampled_from([1, 2])), "act": draw(ACTS)}
    return row | {"conv_bias": draw(st.booleans())}


@st.composite
def pool_rows(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "mbpool", "e": draw(EXPANSIONS), "c": draw(st.integers(1, 40))}
    row |= {"n": draw(st.integers(1, 2)), "act": draw(ACTS), "conv_bias": draw(st.booleans())}
    return row | {"pwl_bn": draw(st.booleans())}


@st.composite
def archs(draw: st.DrawFn) -> Arch:
    """Draws small networks with all ops and keys, odd sizes, and up to three repeats.

    The side of the input is at least 33 pixels: enough for the stem and three strided rows, whose
    outputs have sides 17, 8, 3 and 1.
    """
    rows = [draw(conv_rows())]
    inner = st.one_of(mbconv_rows(), mbconv_rows(), uib_rows(), fused_rows(), skip_rows())
    rows += draw(st.lists(inner, max_size=3))
    if draw(st.booleans()):
        rows.append(draw(pool_rows()))
    stage, blocks = 0, []
    for number, row in enumerate(rows):
        stage += int(number > 0 and draw(st.booleans()))
        blocks.append(Block.from_dict({"stage": stage, **row}))
    return Arch(
        name="drawn",
        resolution=draw(st.integers(33, 65)),
        blocks=tuple(blocks),
        num_classes=draw(st.integers(1, 12)),
    )
