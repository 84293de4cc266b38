"""The state that a run continues from: unreadable and missing checkpoints, several ranks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fbnetv3.config import ConfigError, get_cfg
from fbnetv3.engine import checkpoint_files
from fbnetv3.engine import folder as run_folder
from fbnetv3.engine.checkpoint import Checkpointer, CheckpointError
from fbnetv3.engine.distributed import gather_numbers
from fbnetv3.engine.folder import (
    check_same_start,
    clear_run,
    refuse_own_weights,
    state_to_resume,
)
from fbnetv3.engine.scoring import has_weights, weights_to_score
from tests.runs import one_line

STATE: dict[str, Any] = {"model": {"w": torch.arange(64.0)}}


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def link_to_itself(path: Path) -> None:
    """A link whose reading is an OSError that says nothing of the content."""
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "unmounted" / path.name)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.fixture
def keeper(tmp_path: Path) -> Checkpointer:
    """Two checkpoints, after 10 and 20 steps."""
    keeper = Checkpointer(tmp_path / "run")
    for iteration in (10, 20):
        keeper.save(STATE, iteration)
    return keeper


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("older", [cut_short, link_to_itself, Path.unlink])
@pytest.mark.parametrize("newer", [cut_short, link_to_itself, link_to_nothing, folder])
def test_a_run_without_a_readable_checkpoint_is_never_started_again(
    keeper: Checkpointer,
    newer: Callable[[Path], None],
    older: Callable[[Path], None],
    resume: bool,
) -> None:
    newer(keeper.path(20))
    older(keeper.path(10))
    names = sorted(path.name for path in keeper.folder.iterdir())
    message = r"/run holds a run .*checkpoint_00000020\.pt\), but .*--resume; or use --overwrite"
    with pytest.raises(CheckpointError, match=message) as error:
        state_to_resume(keeper, resume)
    assert all(name in one_line(error) for name in names)
    assert sorted(path.name for path in keeper.folder.iterdir()) == names


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        ["model.safetensors"],
        ["model_ema.safetensors"],
        ["checkpoint_best.pt", "model.safetensors"],
    ],
)
def test_a_finished_run_without_checkpoints_is_kept(
    tmp_path: Path, names: list[str], resume: bool
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=rf"\({', '.join(names)}\)") as error:
        state_to_resume(Checkpointer(tmp_path), resume)
    assert "--overwrite" in one_line(error)


@pytest.mark.parametrize("damage", [cut_short, link_to_itself, link_to_nothing, folder])
def test_an_older_checkpoint_is_used(
    keeper: Checkpointer, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(keeper.path(20))
    state = state_to_resume(keeper, resume=True)
    assert state is not None
    assert state["iteration"] == 10
    assert "skipped the checkpoint" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["", "log.txt", "metrics.json", ".checkpoint_00000001.pt.x", "checkpoint_pretrained.pt"],
)
def test_a_folder_without_checkpoints_and_weights_starts_from_scratch(
    tmp_path: Path, name: str
) -> None:
    if name:
        (tmp_path / name).write_text("")
    for resume in (True, False):
        assert state_to_resume(Checkpointer(tmp_path), resume) is None
        assert state_to_resume(Checkpointer(tmp_path / "none"), resume) is None


def test_a_run_with_its_best_checkpoint_alone_continues_from_there(tmp_path: Path) -> None:
    """It was killed before its first regular checkpoint."""
    keeper = Checkpointer(tmp_path)
    keeper.save_best(STATE, 7)
    state = state_to_resume(keeper, resume=True)
    assert state is not None
    assert state["iteration"] == 7
    with pytest.raises(ConfigError, match=r"checkpoint_best\.pt\): use --resume"):
        state_to_resume(keeper, resume=False)
    cut_short(tmp_path / "checkpoint_best.pt")
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=r"holds a run \(checkpoint_best\.pt\), but no"):
            state_to_resume(keeper, resume=resume)


def test_the_best_checkpoint_alone_is_scored(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", str(tmp_path)])
    keeper = Checkpointer(tmp_path)
    keeper.save_best(STATE, 7)
    state = weights_to_score(cfg, "")
    assert isinstance(state, dict)
    assert state["iteration"] == 7
    exported = tmp_path / "model.safetensors"
    exported.touch()
    assert weights_to_score(cfg, "") == str(exported)  # of the last step, as before
    keeper.save(STATE, 9)
    state = weights_to_score(cfg, "")
    assert isinstance(state, dict)
    assert state["iteration"] == 9


@pytest.mark.parametrize(
    ("damages", "is_used"),
    [
        ((cut_short, cut_short), True),
        ((Path.unlink, cut_short), True),
        ((cut_short, link_to_itself), False),
        ((folder, cut_short), False),
    ],
)
def test_the_best_checkpoint_stands_in_for_damaged_ones(
    keeper: Checkpointer, damages: tuple[Callable[[Path], None], ...], is_used: bool
) -> None:
    best = keeper.save_best(STATE, 15)
    assert keeper.newest() == keeper.path(20)
    for iteration, damage in zip((10, 20), damages, strict=True):
        damage(keeper.path(iteration))
    assert keeper.newest() == (best if is_used else None)
    if is_used:
        state = state_to_resume(keeper, resume=True)
        assert state is not None
        assert state["iteration"] == 15
    else:  # a regular one may come back
        with pytest.raises(CheckpointError, match="no checkpoint that can be read"):
            state_to_resume(keeper, resume=True)


def test_a_users_own_checkpoint_is_no_run_and_is_never_removed(tmp_path: Path) -> None:
    mine = ["checkpoint_pretrained.pt", "checkpoint_0001.pt", ".checkpoint_pretrained.pt.bak"]
    for name in (*mine, ".checkpoint_best.pt.x", ".predictions_raw.png.x", "log.txt"):
        (tmp_path / name).write_bytes(b"weights")
    assert not has_weights(tmp_path)
    keeper = Checkpointer(tmp_path, keep=1)
    keeper.save(STATE, 1)
    keeper.save(STATE, 2)
    keeper.save_best(STATE, 2)
    assert has_weights(tmp_path)
    clear_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(mine)


@pytest.mark.parametrize("key", ["MODEL.WEIGHTS", "MODEL.TEACHER"])
def test_weights_of_a_new_run_are_not_removed_with_the_earlier_one(
    keeper: Checkpointer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(keeper.folder.parent)
    (keeper.folder / "checkpoint_pretrained.pt").touch()
    Path("link.pt").symlink_to("run/checkpoint_00000020.pt")

    def refuse(address: str) -> None:
        cfg = get_cfg()
        cfg.merge_from_list([key, address, "OUTPUT_DIR", str(keeper.folder)])
        refuse_own_weights(cfg)

    for address in ("", "zoo://fbnetv3_a", "run/checkpoint_pretrained.pt", "nowhere.pt"):
        refuse(address)
    refused = ["run", "run/checkpoint_00000010.pt", "link.pt", "run/../run/model_ema.safetensors"]
    (keeper.folder / "model_ema.safetensors").touch()
    for address in refused:
        with pytest.raises(ConfigError, match=f"{key} is {address}: --overwrite would") as error:
            refuse(address)
        assert "use another OUTPUT_DIR" in one_line(error)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_read_is_not_taken_for_empty(
    keeper: Checkpointer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(path: object) -> list[str]:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(checkpoint_files.os, "listdir", fail)
    with pytest.raises(CheckpointError, match=os.strerror(number)) as error:
        state_to_resume(keeper, resume=True)
    assert str(keeper.folder) in one_line(error)


@pytest.mark.parametrize(
    ("damage", "is_removed"), [(cut_short, True), (link_to_itself, False), (folder, False)]
)
def test_a_save_removes_later_checkpoints_only_if_their_content_is_damaged(
    keeper: Checkpointer, damage: Callable[[Path], None], is_removed: bool
) -> None:
    damage(keeper.path(20))
    keeper.save(STATE, 15)
    assert os.path.lexists(keeper.path(20)) != is_removed
    assert keeper.path(10).is_file()
    keeper.save(STATE, 25)  # an older folder is no checkpoint to remove
    keeper.save(STATE, 30)
    keeper.save(STATE, 35)
    assert keeper.latest() == keeper.path(35)


# --- agreement of ranks ---


@pytest.mark.parametrize(
    ("starts", "says"),
    [
        ([200] * 8 + [-1] * 8, "ranks 0 to 7 after 200 steps, ranks 8 to 15 from scratch; set"),
        ([-1, 200], "rank 0 from scratch, rank 1 after 200 steps; set"),
        ([10, 20, 10], "ranks 0, 2 after 10 steps, rank 1 after 20 steps; set"),
        ([0, -1], "rank 0 after 0 steps, rank 1 from scratch; set"),
        ([20, 20, 20], None),
        ([-1, -1], None),
        ([7], None),
    ],
)
def test_ranks_that_start_differently_are_named(
    monkeypatch: pytest.MonkeyPatch, starts: list[int], says: str | None
) -> None:
    for rank, start in enumerate(starts):
        asked: list[int] = []
        monkeypatch.setattr(run_folder, "gather_numbers", lambda n, a=asked: a.append(n) or starts)
        state = None if start < 0 else {"iteration": start}
        if says is None:
            check_same_start(state, "/data/run")
        else:
            with pytest.raises(CheckpointError, match="OUTPUT_DIR /data/run: ") as error:
                check_same_start(state, "/data/run")
            assert says in one_line(error)
        assert asked == [starts[rank]]


def test_numbers_are_gathered_exactly(tmp_path: Path) -> None:
    assert gather_numbers(3) == [3]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        assert [gather_numbers(n) for n in (-1, 0, 2**40 + 1)] == [[-1], [0], [2**40 + 1]]
    finally:
        dist.destroy_process_group()
