"""Architectures by name, family files, and architectures in yaml files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.arch import Arch, ArchError, get_arch, list_archs, register_arch
from fbnetv3.arch.registry import builtin_families, parse_family
from fbnetv3.registries import register_network

NAMES = [
    *(f"fbnet_{x}" for x in "abc"),
    *(f"fbnetv2_{x}" for x in ("f1", "f2", "f3", "f4", "l1", "l2", "l3")),
    *(f"fbnetv3_{x}" for x in ("a", "a0", "b", "c", "d", "e", "f", "g")),
]

FAMILY = """
family: tiny
width_divisor: 8
defaults: {act: relu}
archs:
  tiny_a:
    resolution: 32
    rows:
      - {stage: 0, op: conv, k: 3, c: 8, s: 2}
      - {stage: 1, op: mbpool, e: 6, c: 16}
"""


def test_names() -> None:
    assert [name for name in NAMES if get_arch(name).name == name] == NAMES
    assert list_archs("fbnetv3_?") == [f"fbnetv3_{x}" for x in "abcdefg"]
    assert set(NAMES) <= set(list_archs())
    assert list_archs() == sorted(list_archs())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("FBNetV3-A", r"did you mean .*fbnetv3_a"),
        ("my_test/nut?width=8", r"did you mean my_test/net\?"),
        ("nothing/like/it", "unknown architecture; allowed: a path to a .yaml file, a name"),
    ],
)
def test_an_unknown_name_lists_similar_ones_and_names_import(name: str, hint: str) -> None:
    register_network("my_test/net")(_network)
    with pytest.raises(ArchError, match=hint) as caught:
        get_arch(name)
    assert "fbnetv2_l3" in str(caught.value)
    assert "a name that a file of --import registers" in str(caught.value)


def _network(num_classes: int) -> None:
    """Stands for a user's network, which is not built here."""


def test_a_family_file() -> None:
    (arch,) = parse_family(FAMILY, file="tiny.yaml")
    assert arch.name == "tiny_a"
    assert arch.width_divisor == 8
    assert [block.act for block in arch.blocks] == ["relu", "relu"]


def test_each_family_has_one_file() -> None:
    files = builtin_families()
    fbnets = ["fbnet.yaml", "fbnetv2.yaml", "fbnetv3.yaml", "fbnetv3_nano.yaml"]
    others = ["efficientnet.yaml", "mobilenetv3.yaml", "mobilenetv4.yaml"]
    assert list(files) == sorted(fbnets + others)
    for file, text in files.items():
        family = file.removesuffix(".yaml")
        assert all(arch.name.startswith(f"{family}_") for arch in parse_family(text, file=file))


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ("c: 8", "c: 0", ["tiny.yaml: tiny_a: row 0: c: 0", "integers >= 1"]),
        ("s: 2", "s: -1", ["tiny.yaml: tiny_a: row 0: s: -1"]),
        ("op: conv", "op: covn", ["row 0: op: 'covn': unknown op; did you mean conv"]),
        ("e: 6", "e: 6, kk: 3", ["row 1: kk: 3: op mbpool does not take this key"]),
        ("resolution", "resolutions", ["did you mean resolution"]),
        ("archs", "arches", ["a family must be a mapping with the key archs"]),
        ("family: tiny", "famly: tiny", ["famly: 'tiny': unknown key; did you mean family"]),
        ("tiny_a:", "tiny_b:\n  tiny_a:", ["tiny_b: a table must be a mapping"]),
        ("k: 3", "k: 3, k: 5", ["k: duplicate key in line 9"]),
        ("{act: relu}", "{act: relu", ["cannot read the table: not valid yaml"]),
    ],
)
def test_errors_in_a_family_file(old: str, new: str, messages: list[str]) -> None:
    with pytest.raises(ArchError) as caught:
        parse_family(FAMILY.replace(old, new, 1), file="tiny.yaml")
    text = str(caught.value)
    assert all(message in text for message in ["tiny.yaml", *messages]), text
    assert "\n" not in text


def test_an_architecture_in_a_yaml_file(tmp_path: Path) -> None:
    arch = get_arch("fbnetv3_a0").replace(name="custom")
    path = tmp_path / "custom.yaml"
    path.write_text(arch.to_yaml())
    assert get_arch(str(path)) == arch


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match=r"missing\.yaml: cannot read the file: No such file"):
        get_arch(str(tmp_path / "missing.yaml"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ArchError, match=r"binary\.yaml: cannot read the file"):
        get_arch(str(binary))


def test_yaml_that_makes_objects_is_refused() -> None:
    with pytest.raises(ArchError, match=r"cannot read the table: .*allowed"):
        Arch.from_yaml("name: !!python/object/apply:os.getcwd []")


def test_registered_archs_are_found_by_name() -> None:
    arch = get_arch("fbnetv3_a0").replace(name="test_registry_own", resolution=64)
    assert register_arch(arch) is arch
    assert get_arch("test_registry_own") is arch
    assert "test_registry_own" in list_archs("test_*")
    assert register_arch(arch.replace()) == arch  # an equal one again is allowed
    for name in ("test_registry_own", "fbnetv3_a"):
        with pytest.raises(ArchError, match=f"{name}.*another architecture has this name"):
            register_arch(arch.replace(name=name, resolution=65))
