"""Untrusted yaml: all readers accept only plain values of bounded size."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.arch import get_arch
from fbnetv3.config import get_cfg
from fbnetv3.config.arithmetic import evaluate
from fbnetv3.errors import FBNetError
from fbnetv3.plain_yaml import MAX_VALUES, YamlError, parse_mapping, parse_yaml
from fbnetv3.search.fbnet.run_folder import RunFolder
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.weights.networks import preprocessing_of

ROOT = Path(__file__).resolve().parents[1]
TAGS = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/apply:eval [\"__import__('os').system('touch {}')\"]",
    "!!python/object/new:subprocess.Popen [[touch, '{}']]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!unknown 1",
]
# Ten lines that stand for 10 ** 9 values.
NESTED_ALIASES = "a0: &a0 [lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 10)
)


def _as_config(text: str, folder: Path) -> None:
    (folder / "x.yaml").write_text(text)
    get_cfg().merge_from_file(str(folder / "x.yaml"))


def _as_base(text: str, folder: Path) -> None:
    (folder / "base.yaml").write_text(text)
    _as_config("_BASE_: base.yaml", folder)


def _as_arch(text: str, folder: Path) -> None:
    (folder / "arch.yaml").write_text(text)
    get_arch(str(folder / "arch.yaml"))


def _as_space(text: str, folder: Path) -> None:
    (folder / "space.yaml").write_text(text)
    FBNetSpace.from_yaml(str(folder / "space.yaml"))


def _as_run(text: str, folder: Path) -> None:
    (folder / "config.yaml").write_text(text)
    RunFolder(folder).check_config("SEED: 1", ())


def _as_metadata(text: str, folder: Path) -> None:
    preprocessing_of({"config": text})


READERS = [_as_config, _as_base, _as_arch, _as_space, _as_run, _as_metadata]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("tag", TAGS)
def test_tags_are_refused_and_run_no_code(
    read: Callable[[str, Path], None], tag: str, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    with pytest.raises(FBNetError) as caught:
        read(f"SEED: {tag.format(touched)}\n", tmp_path)
    assert not touched.exists()
    message = str(caught.value)
    assert "\n" not in message
    # Configs compute arithmetic in the tag of eval, and only that.
    assert "!!" in message or "!unknown" in message or "not supported; allowed: numbers" in message


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("text", "message"),
    [(NESTED_ALIASES, f"more than {MAX_VALUES} values"), ("SEED: &a [*a]", "contains itself")],
)
def test_the_number_of_values_is_limited(
    read: Callable[[str, Path], None], text: str, message: str, tmp_path: Path
) -> None:
    start = time.monotonic()
    with pytest.raises(FBNetError, match=message):
        read(text, tmp_path)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "text",
    [
        *("a: [", "!!bool 5", "!!timestamp x", "!!int x", "? [a]\n: b", "2001-99-99", "\x00"),
        "[" * 5000,
        "<<: 5",
    ],
)
def test_the_error_of_broken_yaml_is_one_line(text: str, tmp_path: Path) -> None:
    for read in (parse_yaml, parse_mapping):
        with pytest.raises(YamlError) as caught:
            read(text)
        assert "\n" not in str(caught.value)
    for file_reader in (_as_config, _as_arch, _as_space, _as_run):
        with pytest.raises(FBNetError):
            file_reader(text, tmp_path)


def test_plain_values_and_aliases_are_read() -> None:
    text = "a: &a {x: 1, y: [0.5, true, text, null]}\nb: *a\nc: {<<: *a, x: 2}\n"
    inner: dict[str, Any] = {"x": 1, "y": [0.5, True, "text", None]}
    assert parse_yaml(text) == {"a": inner, "b": inner, "c": {**inner, "x": 2}}


@pytest.mark.parametrize(
    "path",
    sorted(
        p.relative_to(ROOT).as_posix()
        for room in ("model_zoo", "fbnetv3")
        for p in (ROOT / room).rglob("*.yaml")
    ),
)
def test_the_yaml_files_of_the_package_have_no_tags(path: str) -> None:
    assert parse_mapping((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("bases/retinanet.yaml", [32, 64, 128, 256, 512]),
        ("bases/retinanet_small.yaml", [16, 32, 64, 128, 256]),
        ("retinanet_fbnetv3_a0_bccd.yaml", [16, 40, 80, 160, 320]),
    ],
)
def test_anchor_sizes_equal_those_that_detectron2_computes(name: str, first: list[int]) -> None:
    text = (ROOT / "model_zoo" / "detection" / name).read_text()
    sizes = parse_mapping(text)["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]
    assert sizes == [[x, x * 2 ** (1.0 / 3), x * 2 ** (2.0 / 3)] for x in first]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 9 + "0" + " for a in [1,2,3,4,5,6,7,8,9]]" * 9, "steps"),
        ("1+" * 5000 + "1", "characters"),
        ("(" * 400 + "1" + ")" * 400, "cannot be evaluated"),
    ],
)
def test_arithmetic_is_bounded(text: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        evaluate(text)
    assert time.monotonic() - start < 5


# --- configs ---


def _error_message(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(FBNetError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("base", ["/etc/passwd", "../secret.txt", "~/.netrc", "/dev/zero"])
def test_a_base_must_be_a_yaml_file(tmp_path: Path, base: str) -> None:
    message = _error_message(_as_config, f"_BASE_: {base}", tmp_path)
    assert base in message
    assert ".yaml" in message


def test_python_files_are_not_accepted_as_configs(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "config.py"
    path.write_text(f"open({str(touched)!r}, 'w')\ncfg = dict(SEED=1)\n")
    assert "no KEY" in _error_message(get_cfg().merge_from_file, str(path))
    with path.open() as file:
        assert "merge_from_file" in _error_message(get_cfg().load_cfg, file)
    assert not touched.exists()


def test_fvcores_unsafe_loader_is_refused(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = tmp_path / "x.yaml"
    path.write_text(f"SEED: {TAGS[0].format(touched)}\n")
    for allow in (True, False):
        assert "safe" in _error_message(get_cfg().load_yaml_with_base, str(path), allow)
    assert not touched.exists()


def test_deeply_nested_values(tmp_path: Path) -> None:
    deep = "-" * 5000 + "1"
    assert "nested too deeply" in _error_message(_as_config, f"OUTPUT_DIR: '{deep}'", tmp_path)
