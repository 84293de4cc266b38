"""Trainings of a tiny detector: files, resumption, comparison with detectron2's trainer."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.solver import build_lr_scheduler, build_optimizer
from PIL import Image

from fbnetv3.cli import predict, run_main
from fbnetv3.config import CfgNode
from fbnetv3.data import DataError
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.datasets import open_datasets
from fbnetv3.detection.detector import detector_from_file
from fbnetv3.detection.prepare import prepare_detector
from fbnetv3.engine.errors import StoppedError
from fbnetv3.engine.folder import start_folder
from fbnetv3.engine.metrics import read_metrics
from fbnetv3.engine.optim import build_optimizer as build_our_optimizer
from fbnetv3.engine.process import runtime_context
from fbnetv3.engine.trainer import NonFiniteLossError, Trainer
from fbnetv3.training import evaluate, train
from tests.runs import assert_same, assert_same_run, last_state

Make = Callable[..., CfgNode]


def test_a_run_leaves_scores_pictures_tables_and_weights(tiny: Make, tmp_path: Path) -> None:
    cfg, out = tiny(), tmp_path / "out"
    scores = train(cfg)
    assert {"bbox/AP", "bbox/AP50", "bbox/AP_ema", "bbox/AP50_ema"} <= scores.keys()
    rows = read_metrics(out / "metrics.json")
    assert [row["iteration"] for row in rows if "bbox/AP" in row] == [3, 7]
    assert {"loss_cls", "loss_box_reg", "total_loss", "lr"} <= rows[0].keys()
    for name in ("curves.png", "predictions_raw.png", "predictions_ema.png"):
        assert Image.open(out / name).size[0] > 300
    table = (out / "ap_per_class.txt").read_text()
    assert all(word in table for word in ("disc", "square", "raw AP", "ema AP50"))
    for path in list(out.iterdir()):  # what a kill in the middle of a write leaves
        (out / f".{path.name}.12345678").touch()
    start_folder(out, cfg, None)
    assert not list(out.glob(".*"))
    assert evaluate(cfg) == pytest.approx(scores)
    cfg = tiny(MODEL__WEIGHTS=str(out / "model_ema.safetensors"))
    averaged = {f"{name}_ema": value for name, value in evaluate(cfg).items()}
    assert averaged == pytest.approx({k: v for k, v in scores.items() if k.endswith("_ema")})


def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(OUTPUT_DIR=str(whole)), pictures=False)
    cfg = tiny(OUTPUT_DIR=str(parts))

    def stop(epochs: float, scores: dict[str, float]) -> None:
        raise StoppedError("before the checkpoint of this step is written, like a kill")

    with pytest.raises(StoppedError):
        train(tiny(OUTPUT_DIR=str(parts), SOLVER__CHECKPOINT_EPOCHS=0.5), on_eval=stop)
    state = last_state(parts)
    assert state["iteration"] == 2
    assert len(state["task"]["loss_normalizer"]) == 1
    train(cfg, resume=True, pictures=False)
    assert_same_run(whole, parts)


@pytest.mark.parametrize("norm", ["", "BN"])
def test_losses_are_those_of_detectron2s_trainer(
    tiny: Make, monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    changes = {"MODEL_EMA__ENABLED": False, "SOLVER__LR_SCHEDULER_NAME": "steps"}
    changes |= {"MODEL__RETINANET__NORM": norm, "MODEL__RETINANET__NUM_CONVS": 2}
    cfg = tiny(SOLVER__MAX_EPOCHS=5.0, SOLVER__STEPS=(4,), **changes)
    run = prepare_detector(cfg, runtime_context(cfg))
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    after_step = Trainer.after_step

    def losses_of(trainer: Any) -> list[float]:
        # not total_loss, their sum: here it is computed in 32 bits, in detectron2 in 64
        return [trainer.storage.latest()[name][0] for name in ("loss_cls", "loss_box_reg")]

    def record(trainer: Trainer) -> None:  # metrics.json only has medians over some steps
        ours.append(losses_of(trainer))
        after_step(trainer)

    monkeypatch.setattr(Trainer, "after_step", record)
    train(cfg, pictures=False)

    class Recording(SimpleTrainer):
        def after_step(self) -> None:
            theirs.append(losses_of(self))
            scheduler.step()

    solver = cfg.clone()
    solver.defrost()
    solver.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    solver.SOLVER.MAX_ITER, solver.SOLVER.STEPS, solver.SOLVER.WARMUP_ITERS = 20, (16,), 2
    optimizer = build_optimizer(solver, run.model.train())
    scheduler = build_lr_scheduler(solver, optimizer)
    batches = list(itertools.islice(run.loader.batches(), 20))
    Recording(run.model, batches, optimizer).train(0, 20)
    assert len(ours) == 20
    assert ours == theirs
    assert_same(dict(last_state(Path(cfg.OUTPUT_DIR))["model"]), dict(run.model.state_dict()))


@pytest.mark.parametrize("norm", ["", "BN"])
def test_parameters_are_decayed_as_detectron2_decays_them(tiny: Make, norm: str) -> None:
    cfg = tiny(MODEL__RETINANET__NORM=norm)
    run = prepare_detector(cfg, runtime_context(cfg))
    names = {id(p): name for name, p in run.model.named_parameters()}

    def decays(optimizer: torch.optim.Optimizer) -> dict[str, float]:
        groups = optimizer.param_groups
        return {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}

    expected = decays(build_optimizer(run.cfg, run.model))
    assert decays(build_our_optimizer(run.model, run.recipe)) == expected
    assert set(expected.values()) == {0.0, 1e-4}


@pytest.mark.slow
def test_the_first_step_of_a_process_rounds_as_later_ones() -> None:
    """Otherwise a resumed run would differ from an undisturbed one; see warm_up_focal_loss."""
    program = """
import torch
from fvcore.nn import sigmoid_focal_loss_jit
from fbnetv3.detection.build import warm_up_focal_loss

def gradient():
    torch.manual_seed(0)
    logits = torch.randn(999, 7, requires_grad=True)
    truth = (torch.rand(999, 7) > 0.9).float()
    sigmoid_focal_loss_jit(logits, truth, alpha=0.25, gamma=2.0, reduction="sum").backward()
    return logits.grad

warm_up_focal_loss(torch.device("cpu"))
first = gradient()
assert all(torch.equal(gradient(), first) for _ in range(3))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_detectron2s_default_lr_and_a_small_batch_do_not_end_in_nan(tiny: Make) -> None:
    with pytest.raises(NonFiniteLossError, match="BASE_LR"):
        train(tiny(SOLVER__BASE_LR=1e9, SOLVER__WARMUP_EPOCHS=0.0), pictures=False)


def test_data_sets_with_different_classes(tiny: Make, shapes: Path, tmp_path: Path) -> None:
    tree = json.loads((shapes / "shapes.json").read_text())
    tree["categories"][0]["name"] = "cube"
    (tmp_path / "other.json").write_text(json.dumps(tree))
    shapes_entry = tiny().DATASETS.COCO
    other = ["other", str(tmp_path / "other.json"), str(shapes / "images")]
    with pytest.raises(DataError, match="cube"):
        open_datasets(tiny(DATASETS__COCO=[*shapes_entry, other], DATASETS__TEST=("other",)))
    with pytest.raises(DataError, match="did you mean other"):
        open_datasets(tiny(DATASETS__COCO=[other], DATASETS__TRAIN=("othr",)))


def test_images_without_boxes_are_left_out_where_asked(tiny: Make) -> None:
    cfg = tiny(DATALOADER__FILTER_EMPTY_ANNOTATIONS=True)
    train_set, test_set = open_datasets(cfg)
    assert [r["image_id"] for r in train_set.records] == [1, *range(4, 17)]
    assert len(test_set) == 16


@pytest.mark.parametrize("crowd", [None, 1], ids=["no boxes", "crowds only"])
def test_an_evaluation_set_without_boxes_has_no_scores(
    tiny: Make, shapes: Path, tmp_path: Path, caplog: Any, crowd: int | None
) -> None:
    tree = json.loads((shapes / "shapes.json").read_text())
    tree["annotations"] = [{**a, "iscrowd": crowd} for a in tree["annotations"] if crowd]
    (tmp_path / "empty.json").write_text(json.dumps(tree))
    both = [*tiny().DATASETS.COCO, ["empty", str(tmp_path / "empty.json"), str(shapes / "images")]]
    cfg = tiny(DATASETS__COCO=both, DATASETS__TEST=("empty",), SOLVER__MAX_EPOCHS=1.0)
    assert train(cfg) == {}
    assert "DATASETS.TEST empty has no box that counts" in caplog.text
    assert "no class" in (tmp_path / "out" / "ap_per_class.txt").read_text()
    with pytest.raises(DataError, match=r"DATASETS\.TRAIN empty: no image has a box"):
        open_datasets(tiny(DATASETS__COCO=both, DATASETS__TRAIN=("empty",)))


def test_a_detector_read_from_a_file(tiny: Make, tmp_path: Path, shapes: Path, capsys: Any) -> None:
    cfg = tiny(SOLVER__MAX_EPOCHS=1.0, MODEL__RETINANET__SCORE_THRESH_TEST=0.0)
    train(cfg, pictures=False)
    path = tmp_path / "out" / "model_ema.safetensors"
    detector = detector_from_file(path)
    assert detector.classes == ("disc", "square")
    image = Image.open(shapes / "images" / "1.png")
    (result,) = detector([image])
    assert set(result) == {"boxes", "scores", "labels"}
    assert result["boxes"].shape == (len(result["scores"]), 4)
    model, _ = build_detector(cfg, ["disc", "square"], torch.device("cpu"))
    model.load_state_dict(detector.model.state_dict())
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    with torch.no_grad():
        expected = model.eval()([{"image": pixels, "height": 64, "width": 64}])[0]["instances"]
    torch.testing.assert_close(result["boxes"], expected.pred_boxes.tensor)
    large = image.resize((128, 128))
    assert detector([large])[0]["boxes"].max() > result["boxes"].max()

    arguments = [str(shapes / "images"), "--weights", str(path), "--threshold", "0"]
    assert run_main(predict.main, [*arguments, "--output", str(tmp_path / "drawn")]) == 0
    assert "disc" in capsys.readouterr().out
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 16
