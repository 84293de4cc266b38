"""Config files: bases, broken files, code in files, arithmetic, detectron2's configs."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import detectron2.model_zoo
import pytest
import yaml
from detectron2.config import get_cfg as detectron_get_cfg

from fbnetv3.arch import get_arch
from fbnetv3.config import (
    ConfigError,
    get_cfg,
    get_value,
    iter_keys,
)
from fbnetv3.config.archs import arch_from_config
from fbnetv3.config.arithmetic import evaluate
from tests.config.helpers import error_of, write

DETECTRON = Path(detectron2.model_zoo.__file__).parent / "configs"


def test_bases_of_bases(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "SEED: 1\nSOLVER: {BASE_LR: 1.0, MOMENTUM: 0.1}", "a.yaml")
    write(tmp_path, "SEED: 2\nVIS_PERIOD: 2", "b.yaml")
    write(tmp_path / "sub", "_BASE_: [../a.yaml, ../b.yaml]\nSOLVER: {BASE_LR: 2.0}", "c.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "_BASE_: sub/c.yaml\nSOLVER: {MAX_EPOCHS: 3}", "d.yaml"))
    assert (cfg.SEED, cfg.VIS_PERIOD) == (2, 2)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.MAX_EPOCHS) == (2.0, 0.1, 3.0)


def test_a_base_may_be_reached_twice(tmp_path: Path) -> None:
    write(tmp_path, "SEED: 1", "a.yaml")
    write(tmp_path, "_BASE_: a.yaml", "b.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "_BASE_: [a.yaml, b.yaml]"))
    assert cfg.SEED == 1


def test_each_base_is_read_once(tmp_path: Path) -> None:
    """Each of 40 files names the one before twice, so 2**40 ways lead to the first one."""
    write(tmp_path, "SEED: 1\nSOLVER: {BASE_LR: 1.0}", "0.yaml")
    for i in range(1, 41):
        write(tmp_path, f"_BASE_: [{i - 1}.yaml, {i - 1}.yaml]", f"{i}.yaml")
    cfg = get_cfg()
    cfg.merge_from_file(write(tmp_path, "_BASE_: [40.yaml, 0.yaml]\nSOLVER: {BASE_LR: 2.0}"))
    assert (cfg.SEED, cfg.SOLVER.BASE_LR) == (1, 2.0)


@pytest.mark.parametrize("names", ["x.yaml", "y.yaml"])
def test_circular_bases(tmp_path: Path, names: str) -> None:
    write(tmp_path, "_BASE_: x.yaml", "y.yaml")
    text = error_of(get_cfg().merge_from_file, write(tmp_path, f"_BASE_: {names}"))
    assert "its own _BASE_" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("_BASE_: 5", "_BASE_ takes"),
        ("_BASE_: [5]", "_BASE_ takes"),
        ("_BASE_: nowhere.yaml", "nowhere.yaml"),
        ("", "has no KEY"),
        ("- 1", "has no KEY"),
        ("A: [", "not a yaml file"),
        ("A: {b: c: d}", "not a yaml file"),
        ("VERSION: 1", "VERSION 1"),
        ("VERSION: 3", "VERSION 3"),
    ],
)
def test_invalid_files(tmp_path: Path, text: str, says: str) -> None:
    assert says in error_of(get_cfg().merge_from_file, write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in error_of(get_cfg().merge_from_file, str(tmp_path / "no.yaml"))


def test_a_base_of_an_old_version(tmp_path: Path) -> None:
    write(tmp_path, "VERSION: 1", "old.yaml")
    assert "old.yaml" in error_of(
        get_cfg().merge_from_file, write(tmp_path, "_BASE_: old.yaml\nVERSION: 2")
    )


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/apply:eval [\"__import__('os').system('touch {}')\"]",
        "!!python/object/new:subprocess.Popen [[touch, '{}']]",
        "!!python/name:os.system",
    ],
)
def test_code_in_a_file_does_not_run(tmp_path: Path, tag: str) -> None:
    touched = tmp_path / "touched"
    path = write(tmp_path, f"OUTPUT_DIR: {tag.format(touched)}\n")
    assert "safely" in error_of(get_cfg().merge_from_file, path)
    assert not touched.exists()


def test_the_unsafe_loader_is_refused(tmp_path: Path) -> None:
    assert "safe" in error_of(get_cfg().merge_from_file, write(tmp_path, "SEED: 1"), True)


@pytest.mark.parametrize(
    "text",
    [
        *("9 ** 9 ** 9 ** 9", "[0] * 9", "'a' * 9", "x", "f(1)", "[1 for a in [1] if a]", "1 / 0"),
        *("(1).real", "[a for a in 5]", "lambda: 1", "1 and 1", "-'a'", "(-1) ** 0.5", "[", ""),
    ],
)
def test_arithmetic_evaluates_numbers_and_lists_only(text: str) -> None:
    with pytest.raises(ValueError):
        evaluate(text)


@pytest.mark.parametrize(
    "text", ["1", "-2.5", "[1, [2, 3]]", "[[x, x * 2 ** (1 / 3)] for x in [8, 2 * 8 % 7]]", "7//2"]
)
def test_arithmetic_agrees_with_python(text: str) -> None:
    assert evaluate(text) == eval(text)


@pytest.mark.parametrize(
    "name",
    [Path(p).relative_to(DETECTRON).as_posix() for p in glob.glob(f"{DETECTRON}/COCO-*/*.yaml")],
)
def test_detectron2s_configs_merge_as_in_detectron2(name: str) -> None:
    ours, theirs = get_cfg(), detectron_get_cfg()
    ours.merge_from_file(os.path.join(DETECTRON, name))
    theirs.merge_from_file(os.path.join(DETECTRON, name))
    stated = yaml_keys(DETECTRON / name)
    assert stated
    for key in stated:
        assert get_value(ours, key) == get_value(theirs, key), key


def yaml_keys(path: Path) -> list[str]:
    values = yaml.safe_load(path.read_text())
    values.pop("_BASE_", None)
    return [key for key, _ in iter_keys(values)] + ["MODEL.ANCHOR_GENERATOR.SIZES"]


def test_tables_for_other_images_than_rgb_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "grey.yaml"
    path.write_text(get_arch("fbnetv3_nano_a").replace(in_channels=1).to_yaml())
    cfg = get_cfg()
    cfg.MODEL.ARCH = str(path)
    with pytest.raises(ConfigError, match=r"takes images of 1 channels; allowed: 3"):
        arch_from_config(cfg)
