"""Names of architectures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fbnetv3.arch import ArchError, get_arch, list_archs, register_arch

NAMES = [
    *(f"fbnet_{x}" for x in "abc"),
    *(f"fbnetv2_{x}" for x in ("f1", "f2", "f3", "f4", "l1", "l2", "l3")),
    *(f"fbnetv3_{x}" for x in ("a", "a0", "b", "c", "d", "e", "f", "g")),
]


def test_names() -> None:
    assert [name for name in NAMES if get_arch(name).name == name] == NAMES
    assert list_archs("fbnetv3_?") == [f"fbnetv3_{x}" for x in "abcdefg"]
    assert set(NAMES) <= set(list_archs())
    assert list_archs() == sorted(list_archs())


def test_unknown_name_lists_close_ones() -> None:
    with pytest.raises(ArchError, match=r"did you mean .*fbnetv3_a") as caught:
        get_arch("FBNetV3-A")
    assert "fbnetv2_l3" in str(caught.value)


def test_own_archs() -> None:
    mine = get_arch("fbnetv3_a0").replace(name="test_registry_mine", resolution=64)
    assert register_arch(mine) is mine
    assert get_arch("test_registry_mine") is mine
    assert register_arch(mine.replace()) == mine  # the same again is fine
    for name in ("test_registry_mine", "fbnetv3_a"):
        with pytest.raises(ArchError, match=f"{name}.*another architecture has this name"):
            register_arch(mine.replace(name=name, resolution=65))


def test_needs_no_torch() -> None:
    code = "import sys, fbnetv3.arch as a; a.count_cost('fbnetv3_g'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
