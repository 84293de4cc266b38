"""Tables on disk: yaml, families, and what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.arch import Arch, ArchError, get_arch, load_arch
from fbnetv3.arch.registry import builtin_families, parse_family

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


def test_a_family() -> None:
    (arch,) = parse_family(FAMILY, file="tiny.yaml")
    assert arch.name == "tiny_a"
    assert arch.width_divisor == 8
    assert [block.act for block in arch.blocks] == ["relu", "relu"]


def test_there_is_one_file_a_family() -> None:
    files = builtin_families()
    assert list(files) == ["fbnet.yaml", "fbnetv2.yaml", "fbnetv3.yaml", "fbnetv3_nano.yaml"]
    for file, text in files.items():
        family = file.removesuffix(".yaml")
        assert all(arch.name.startswith(f"{family}_") for arch in parse_family(text, file=file))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("c: 8", "c: 0", ["tiny.yaml: tiny_a: row 0: c: 0", "integers >= 1"]),
        ("s: 2", "s: -1", ["tiny.yaml: tiny_a: row 0: s: -1"]),
        ("op: conv", "op: covn", ["row 0: op: 'covn': unknown op; did you mean conv"]),
        ("e: 6", "e: 6, kk: 3", ["row 1: kk: 3: op mbpool does not take this key"]),
        ("resolution", "resolutions", ["did you mean resolution"]),
        ("archs", "arches", ["a family is a mapping with archs"]),
        ("family: tiny", "famly: tiny", ["famly: 'tiny': unknown key; did you mean family"]),
        ("k: 3", "k: 3, k: 5", ["k: None: given twice (line 9)"]),
        ("{act: relu}", "{act: relu", ["not yaml"]),
    ],
)
def test_bad_family(old: str, new: str, words: list[str]) -> None:
    with pytest.raises(ArchError) as caught:
        parse_family(FAMILY.replace(old, new, 1), file="tiny.yaml")
    text = str(caught.value)
    assert all(word in text for word in ["tiny.yaml", *words]), text
    assert "\n" not in text


def test_an_arch_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(get_arch("fbnetv3_a0").replace(name="mine").to_yaml())
    assert get_arch(str(path)) == load_arch(path) == get_arch("fbnetv3_a0").replace(name="mine")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArchError, match=r"nowhere\.yaml: cannot read it: No such file"):
        get_arch(str(tmp_path / "nowhere.yaml"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ArchError, match=r"binary\.yaml: cannot read it"):
        load_arch(binary)


def test_yaml_that_makes_objects_is_refused() -> None:
    with pytest.raises(ArchError, match="not yaml"):
        Arch.from_yaml("name: !!python/object/apply:os.getcwd []")
