"""The entry points of ``torch.hub``."""

from __future__ import annotations

import importlib.util

import torch

import fbnetv3
from tests.conftest import ROOT


def test_each_architecture_is_an_entry_point() -> None:
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    assert all(callable(getattr(hubconf, name)) for name in fbnetv3.list_archs())
    assert "fbnetv3.build_model" in hubconf.fbnetv3_a.__doc__


def test_a_network_is_loaded_with_its_arguments() -> None:
    model = torch.hub.load(str(ROOT), "fbnetv3_nano_a", source="local", num_classes=3)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_weights_are_those_of_the_zoo() -> None:
    model = torch.hub.load(str(ROOT), "fbnetv3_nano_a", source="local", pretrained=True)
    expected = fbnetv3.build_model("fbnetv3_nano_a", pretrained=True).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
