"""Configs of scaled networks, and the table of trained ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fbnetv3.arch import Arch, count_cost, get_arch, scale
from fbnetv3.classification.prepare import prepare_classifier
from fbnetv3.cli import run_main, zoo
from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.config.archs import arch_from_config, own_resolution
from fbnetv3.engine.process import runtime_context
from fbnetv3.training import train
from fbnetv3.zoo.points import run_point, warnings
from fbnetv3.zoo.runs import read_run
from fbnetv3.zoo.scaling import scale_config
from tests.classification.test_build import Make


def read(path: Path) -> tuple[CfgNode, Arch]:
    """Returns a config that was written, and its network."""
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    arch = arch_from_config(cfg)
    assert isinstance(arch, Arch)
    return cfg, arch


@pytest.mark.parametrize(("base", "macs"), [("b", 3.43e8), ("e", 1.18e9), ("e", 2.0e9)])
def test_the_papers_smallest_and_largest_networks(tmp_path: Path, base: str, macs: float) -> None:
    output = tmp_path / "out" / "a.yaml"
    opts = ["MODEL.DROP_PATH_RATE", "0.2"]
    scaled = scale_config(f"fbnetv3_{base}.yaml", macs=macs, output=output, opts=opts)
    cfg, arch = read(scaled.path)
    assert count_cost(arch).macs == scaled.cost.macs == pytest.approx(macs, rel=0.03)
    assert scaled.base_cost == count_cost(get_arch(f"fbnetv3_{base}"))
    assert cfg.INPUT.RESOLUTION == arch.resolution == own_resolution(cfg)
    before = get_cfg()
    before.merge_from_file(f"model_zoo/fbnetv3_{base}.yaml")
    assert cfg.INPUT.RESIZE / arch.resolution == pytest.approx(
        before.INPUT.RESIZE / before.INPUT.RESOLUTION, rel=0.01
    )
    assert (cfg.MODEL.DROP_PATH_RATE, cfg.SOLVER.IMS_PER_BATCH) == (0.2, 2048)


def test_single_factors(tmp_path: Path) -> None:
    base = get_arch("fbnetv3_b")
    for factors, expected in (
        ({"width": 1.2}, scale(base, width=1.2)),
        ({"depth": 0.5}, scale(base, depth=0.5)),
        ({"resolution": 320}, base.replace(resolution=320)),
        ({"width": 0.8, "resolution": 224}, scale(base, width=0.8).replace(resolution=224)),
    ):
        scaled = scale_config("fbnetv3_b.yaml", **factors, output=tmp_path / "x.yaml")  # type: ignore[arg-type]
        assert scaled.arch.blocks == expected.blocks
        assert read(scaled.path)[1].resolution == expected.resolution


def test_a_scaled_config_trains_and_is_listed(
    tiny: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "winner.yaml"
    config.write_text(tiny(INPUT__RESOLUTION=16, SOLVER__MAX_EPOCHS=1.0).dump())
    assert run_main(zoo.main, ["scale", str(config), "--resolution", "24", "SEED", "7"]) == 0
    out = capsys.readouterr().out
    path = next(tmp_path.glob("winner_*M.yaml"))
    assert f"--config-file {path} --resume" in out
    cfg, _ = read(path)
    assert (cfg.INPUT.RESOLUTION, cfg.INPUT.RESIZE, cfg.SEED) == (24, 24, 7)
    assert dict(prepare_classifier(cfg, runtime_context(cfg)).plan).get("resolution") is None
    scores = train(cfg)
    run = read_run(cfg.OUTPUT_DIR)
    assert (run.name, run.resolution, run.num_classes) == (path.stem, 24, 10)
    assert run.top1_ema == pytest.approx(scores["val/top1_ema"])
    assert run_main(zoo.main, ["runs", cfg.OUTPUT_DIR]) == 0
    table = capsys.readouterr().out
    assert run.dataset == cfg.DATASETS.TEST[0]
    assert run_point(cfg.OUTPUT_DIR, run.dataset).group == "runs"
    other = run_point(cfg.OUTPUT_DIR)  # scored on other images than ImageNet's
    assert other.group == f"runs, on {run.dataset}"
    (line,) = warnings([other], "imagenet_val")
    assert f"scored on {run.dataset}: do not compare it with accuracies on imagenet_val" in line
    assert re.search(rf"{path.stem} +. +0.\dM .* 24 .* {scores['val/top1_ema']:.2f}", table)
    monkeypatch.chdir(cfg.OUTPUT_DIR)
    assert read_run(".").name == path.stem


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fbnetv3_b.yaml"], "give either macs, or at least one of width, depth and resolution"),
        (["fbnetv3_b.yaml", "--macs", "1e9", "--depth", "2"], "give either macs, or"),
        (["fbnetv3_b.yaml", "--macs", "-1"], "numbers > 0"),
        (["fbnetv3_b.yaml", "--width", "0"], "numbers > 0"),
        (["search/digits.yaml", "--width", "2"], "describes a search"),
        (["detection/retinanet_fbnetv3_a0_bccd.yaml", "--width", "2"], "describes a detector"),
        (["fbnetv3_b.yaml", "--width", "2", "MODEL.ARCH", "timm/resnet18"], "another library"),
        (["fbnetv3_b.yaml", "--width", "2", "--output", "x.json"], "allowed: a .yaml file other"),
        (["no.yaml", "--width", "2"], "neither a file nor in"),
    ],
)
def test_what_cannot_be_scaled(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(zoo.main, ["scale", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_config_is_not_overwritten_by_its_scaled_form(tiny: Make, tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(tiny().dump())
    argv = ["scale", str(config), "--width", "2", "--output", str(config)]
    assert run_main(zoo.main, argv) == 2
    assert config.read_text() == tiny().dump()


def test_a_folder_without_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(zoo.main, ["runs", str(tmp_path)]) == 2
    assert "holds no finished training" in capsys.readouterr().err


def test_other_commands_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["list", "*", "SEED", "1"], ["scale", "x.yaml", "--mac", "1", "--wide", "2"]):
        with pytest.raises(SystemExit):
            zoo.main(argv)
        assert "unrecognized arguments" in capsys.readouterr().err
