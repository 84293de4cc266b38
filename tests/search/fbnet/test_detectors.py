"""A search over detectors: its data, its trainings' configs, and spaces that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from fbnetv3.arch.latency import LatencyTable
from fbnetv3.data.errors import DataError
from fbnetv3.detection.datasets import (
    build_detection_dataset,
    open_datasets,
    records_with_boxes,
)
from fbnetv3.resources import find_config
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.config import SearchSetup
from fbnetv3.search.fbnet.datasets import (
    chance_score,
    counts_iterations,
    final_classes,
    register_search_split,
)
from fbnetv3.search.fbnet.detectors import (
    check_detector_data,
    detector_values,
    iterations_per_epoch,
)
from fbnetv3.search.fbnet.identity import values_affecting_scores
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.tasks import check_task, space_of_detectors, statistics_of

_DIGITS = ["DATASETS.TRAIN", ("digits_scenes_train",), "DATASETS.TEST", ("digits_scenes_test",)]


def _setup(*opts: Any, config: str = "search/retinanet_bccd.yaml") -> SearchSetup:
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config(config)))
    cfg.merge_from_list([*_DIGITS, *opts])
    return SearchSetup(cfg)


def _space_opts(folder: Path, text: str) -> list[Any]:
    path = folder / "space.yaml"
    path.write_text(text)
    return ["SEARCH.SPACE", str(path)]


def test_held_out_images_are_not_trained_on() -> None:
    setup = _setup("SEARCH.HOLD_OUT", 50, "DATA.CHECK_IMAGES", False)
    names = register_search_split(setup.cfg)
    train, test = (build_detection_dataset(name, setup.cfg) for name in names)
    assert (len(train), len(test)) == (750, 50)
    assert not {r["image_id"] for r in train.records} & {r["image_id"] for r in test.records}
    assert register_search_split(setup.cfg) == names  # a second call registers nothing
    assert final_classes(setup.cfg) == 10


def test_chance_is_far_below_what_a_detector_learns() -> None:
    setup = _setup("SEARCH.HOLD_OUT", 50, "DATA.CHECK_IMAGES", False)
    chance = chance_score(setup.cfg)
    assert 0 < chance < 2
    assert chance_score(setup.cfg) == chance


def test_chance_is_unknown_where_no_training_image_has_a_box() -> None:
    setup = _setup("DATA.CHECK_IMAGES", False)
    scenes = build_detection_dataset("digits_scenes_train", setup.cfg)
    bare = scenes.replace_records([{**record, "annotations": []} for record in scenes.records])
    with pytest.raises(DataError, match="digits_scenes_train: no image has a box to train on"):
        records_with_boxes(bare)


def test_a_limit_of_the_training_set_keeps_the_shares_of_the_classes() -> None:
    setup = _setup("DATA.CHECK_IMAGES", False, "DATA.TRAIN_LIMIT", 100)
    train, _ = open_datasets(setup.cfg)
    assert len(train) == 100
    cfg = setup.cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH = 8
    assert iterations_per_epoch(cfg) == 12


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SEARCH.CLASSES", 3], "SEARCH.CLASSES=3 is not allowed for a detector"),
        (["SEARCH.HOLD_OUT", 800], "HOLD_OUT=800: .* has 800 images; allowed: 1 to 799"),
    ],
)
def test_data_that_a_search_cannot_use(opts: list[Any], message: str) -> None:
    setup = _setup(*opts, "DATA.CHECK_IMAGES", False)
    with pytest.raises(SearchError, match=message):
        check_detector_data(setup.cfg, "digits_scenes_train", "digits_scenes_test")


def test_only_what_the_space_sets_is_changed(tmp_path: Path) -> None:
    text = """
        resolution: {range: [64, 192, 32]}
        detector: {fpn_channels: 48, head_convs: 2, focal_gamma: 1.5, anchor_scale: 0.5}
        recipe: {lr: 0.02, optimizer: sgd, weight_decay: 1e-3, clip_grad_norm: 5}
    """
    setup = _setup(*_space_opts(tmp_path, text), "SOLVER.MAX_EPOCHS", 0.0, "SOLVER.MAX_ITER", 9000)
    values = detector_values(setup.cfg, space_of_detectors(setup), {"resolution": 64})
    sizes = values.pop("MODEL.ANCHOR_GENERATOR.SIZES")
    assert [level[0] for level in sizes] == [3.7645, 9.412, 18.8235, 37.647, 75.294]
    assert values == {
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.WEIGHT_DECAY": 1e-3,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 5,
        "MODEL.FPN.OUT_CHANNELS": 48,
        "MODEL.RETINANET.NUM_CONVS": 2,
        "MODEL.RETINANET.FOCAL_LOSS_GAMMA": 1.5,
        "INPUT.MIN_SIZE_TEST": 64,
        "INPUT.MIN_SIZE_TRAIN": (52, 60, 68, 76),  # half of the config's, as 64 is of 128
        "INPUT.MAX_SIZE_TRAIN": 666,
        "INPUT.MAX_SIZE_TEST": 666,
    }


def test_a_field_that_does_not_matter_keeps_the_value_of_the_config(tmp_path: Path) -> None:
    text = """
        recipe: {optimizer: {choices: [sgd, adamw]}}
        detector:
          focal_gamma: {range: [1.0, 3.0], when: {optimizer: adamw}}
          iterations: {range: [100, 400, 100], when: {optimizer: adamw}}
    """
    setup = _setup(*_space_opts(tmp_path, text))
    config = {"optimizer": "adamw", "focal_gamma": 1.25, "iterations": 300}
    space = space_of_detectors(setup)
    searched = detector_values(setup.cfg, space, config)
    assert searched["MODEL.RETINANET.FOCAL_LOSS_GAMMA"] == 1.25
    assert searched["SOLVER.MAX_ITER"] == 300
    kept = detector_values(setup.cfg, space, {**config, "optimizer": "sgd"})
    assert not {"MODEL.RETINANET.FOCAL_LOSS_GAMMA", "SOLVER.MAX_ITER", "SOLVER.MAX_EPOCHS"} & {
        *kept
    }


def test_iterations_replace_the_epochs_of_the_config(tmp_path: Path) -> None:
    setup = _setup(*_space_opts(tmp_path, "detector: {iterations: {range: [100, 400, 100]}}"))
    values = detector_values(setup.cfg, space_of_detectors(setup), {"iterations": 300})
    assert values == {"SOLVER.MAX_ITER": 300, "SOLVER.MAX_EPOCHS": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("detector: {width: 3}", "detector has no key 'width'"),
        ("detector: 3", "detector must be a mapping .* not 3"),
        (
            "detector: {fpn_channels: {range: [0, 8]}}",
            "fpn_channels=0 is not allowed; .*whole numbers, 1 or more",
        ),
        ("detector: {head_convs: {choices: [1, 1.5]}}", "head_convs=1.5 is not allowed"),
        ("detector: {focal_alpha: {range: [0.2, 1.2]}}", "focal_alpha=1.2 .* numbers, 0 to 1"),
        (
            "recipe: {mixup: {range: [0.1, 0.2]}}",
            "recipe sets mixup, which is not read for a detector",
        ),
        (
            "{recipe: {epochs: 3}, detector: {iterations: {range: [5, 9]}}}",
            "sets both epochs and iterations",
        ),
        ("recipe: {epochs: {range: [2, 4]}}", "searches epochs, but SEARCH.EARLY_STOP=0.92"),
    ],
)
def test_spaces_that_do_not_fit_a_detector(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        check_task(_setup(*_space_opts(tmp_path, text)))


def test_a_stepped_schedule_does_not_follow_a_searched_length(tmp_path: Path) -> None:
    opts = ["SEARCH.EARLY_STOP", 0.0, "SOLVER.LR_SCHEDULER_NAME", "steps", "SOLVER.STEPS", (1, 2)]
    setup = _setup(*_space_opts(tmp_path, "recipe: {epochs: {range: [3, 4]}}"), *opts)
    with pytest.raises(SearchError, match=r"SOLVER\.STEPS do not follow"):
        check_task(setup)


@pytest.mark.parametrize(
    ("key", "value", "searched"),
    [
        ("MODEL.FPN.OUT_CHANNELS", 64, "detector fpn_channels"),
        ("INPUT.MIN_SIZE_TEST", 800, "resolution"),
    ],
)
def test_the_final_training_keeps_what_was_searched(key: str, value: int, searched: str) -> None:
    setup = _setup("SEARCH.SPACE", "retinanet", "SEARCH.FINAL", [key, value])
    with pytest.raises(SearchError, match=f"SEARCH.FINAL sets {key}, which the space's {searched}"):
        check_task(setup)


_UNSIZED = ["INPUT.MIN_SIZE_TEST", 0]


@pytest.mark.parametrize(
    ("text", "opts", "message"),
    [
        ("resolution: {range: [64, 96, 32]}", _UNSIZED, "the space sets the resolution"),
        (
            "{resolution: 64, recipe: {lr: {range: [0.1, 1]}}}",
            _UNSIZED,
            "the space sets the resolution",
        ),
        ("detector: {head_convs: {range: [1, 2]}}", _UNSIZED, "the costs of the space's detectors"),
        (
            "detector: {fpn_channels: {choices: [32, 48]}}",
            ["SEARCH.FINAL", _UNSIZED],
            "the costs of the space's detectors",
        ),
    ],
)
def test_costs_and_resolutions_need_a_size_of_images(
    tmp_path: Path, text: str, opts: list[Any], message: str
) -> None:
    setup = _setup(*_space_opts(tmp_path, text), "SEARCH.FINAL", [], *opts)
    for check in (check_task, statistics_of):
        with pytest.raises(SearchError, match=rf"^INPUT\.MIN_SIZE_TEST is 0 .*, but {message}"):
            check(setup)


def test_a_recipe_alone_needs_no_size_of_images(tmp_path: Path) -> None:
    setup = _setup(*_space_opts(tmp_path, "recipe: {lr: {range: [0.01, 0.1]}}"), *_UNSIZED)
    check_task(setup)
    assert statistics_of(setup) is None


def test_costs_are_those_of_the_final_size_of_images(tmp_path: Path) -> None:
    opts = [*_UNSIZED, "SEARCH.FINAL", ["INPUT.MIN_SIZE_TEST", 160]]
    setup = _setup(*_space_opts(tmp_path, "detector: {head_convs: {range: [1, 2]}}"), *opts)
    check_task(setup)
    statistics = statistics_of(setup)
    assert statistics is not None
    assert statistics([{"head_convs": 1}])["macs"][0] > 0


def test_a_classifier_has_no_group_detector(tmp_path: Path) -> None:
    opts = _space_opts(tmp_path, "detector: {fpn_channels: {range: [32, 64]}}")
    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config("search/digits.yaml")))
    cfg.merge_from_list([*opts, "SEARCH.FIX", []])
    with pytest.raises(SearchError, match="has the group detector"):
        check_task(SearchSetup(cfg))


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1.0, False), (2.0, False), (0.5, True), (0.0, True)]
)
def test_scores_are_told_apart_by_iterations_where_epochs_are_too_coarse(
    epochs: float, expected: bool
) -> None:
    assert counts_iterations(_setup("TEST.EVAL_EPOCHS", epochs).cfg) is expected


def test_the_aspect_ratio_counts_only_where_it_is_given() -> None:
    """Logs and folders of earlier versions, which lack the key, still match."""
    cfg = get_search_cfg()
    assert "SEARCH.ASPECT_RATIO" not in values_affecting_scores(cfg)
    cfg.SEARCH.ASPECT_RATIO = 1.5
    assert values_affecting_scores(cfg)["SEARCH.ASPECT_RATIO"] == 1.5


@pytest.mark.parametrize(
    ("about", "message"),
    [({}, "measured for a classifier"), ({"aspect_ratio": 1.0}, "of aspect ratio 1, but")],
)
def test_a_latency_table_of_other_images_is_refused(
    tmp_path: Path, about: dict[str, Any], message: str
) -> None:
    LatencyTable([], about).save(tmp_path / "table.json")
    setup = _setup("SEARCH.LATENCY_TABLE", str(tmp_path / "table.json"), "SEARCH.FINAL_CLASSES", 3)
    with pytest.raises(SearchError, match=message):
        statistics_of(setup)


def test_the_packaged_search_on_coco_fits_its_space() -> None:
    setup = _setup("SEARCH.FINAL_CLASSES", 80, config="search/retinanet_coco.yaml")
    check_task(setup)
    assert counts_iterations(setup.cfg)
