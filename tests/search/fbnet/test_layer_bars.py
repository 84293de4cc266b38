"""The layers that a report draws are those of the config's network."""

from __future__ import annotations

from pathlib import Path

import pytest

import fbnetv3
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.layer_bars import layer_bars


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "best.yaml"
    path.write_text(text)
    return path


def test_the_bars_are_the_layers_of_the_network(tmp_path: Path) -> None:
    bars = layer_bars(config(tmp_path, "MODEL: {ARCH: fbnetv3_a}\n"))
    arch = fbnetv3.get_arch("fbnetv3_a")
    assert [bar.channels for bar in bars] == [layer.c_out for layer in arch.layers()]
    assert [bar.stage for bar in bars] == [layer.stage for layer in arch.layers()]
    assert bars[0].side == 112
    assert {bar.kernel for bar in bars} == {1, 3, 5}
    assert "stage 1: mbconv, 3 x 3 kernel, expansion 1, 16 channels" in bars[1].text


@pytest.mark.parametrize("text", ["MODEL: {ARCH: timm/resnet18}\n", "MODEL: {NO_KEY: 1}\n", "["])
def test_a_config_without_a_table_has_no_bars(text: str, tmp_path: Path) -> None:
    assert layer_bars(config(tmp_path, text)) == ()


def test_a_missing_config_and_a_detector_have_no_bars(tmp_path: Path) -> None:
    assert layer_bars(tmp_path / "none.yaml") == ()
    assert layer_bars(find_config("model_zoo/detection/retinanet_fbnetv3_a0_digits.yaml")) == ()
