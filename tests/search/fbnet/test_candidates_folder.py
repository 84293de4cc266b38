"""A search finds its candidates in SEARCH.CANDIDATES when it is continued."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2")

from fbnetv3.config import CfgNode
from fbnetv3.search.errors import StorageUnavailableError
from fbnetv3.search.fbnet.candidates_folder import candidates_place
from fbnetv3.search.fbnet.identity import values_affecting_scores
from fbnetv3.search.fbnet.keys import get_search_cfg
from fbnetv3.search.fbnet.mirror import Mirror
from fbnetv3.search.fbnet.run_folder import RunFolder


def _cfg(place: str, iterations: int, **more: Any) -> CfgNode:
    cfg = get_search_cfg()
    pairs = {"SEARCH.CANDIDATES": place, "SEARCH.ITERATIONS": iterations, **more}
    cfg.merge_from_list([item for pair in pairs.items() for item in pair])
    return cfg


def _scored_by(cfg: CfgNode) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(values_affecting_scores(cfg)))
    return values


def _name(place: str, iterations: int, folder: Path, **options: Any) -> str:
    """Returns the name of the subfolder, and makes the subfolder and the run's config."""
    cfg, run = _cfg(place, iterations), RunFolder(folder)
    found = candidates_place(cfg, run, _scored_by(cfg), **options)
    run.path.mkdir(exist_ok=True)
    run.write_config(cfg.dump(), {})
    parent, _, name = found.rpartition("/")
    assert parent == place.rstrip("/")
    path = Path(parent.removeprefix("file://")) / name
    path.mkdir(parents=True, exist_ok=True)
    return name


def _former_name(place: str, iterations: int) -> str:
    """The name in version 0.1, which depends on the number of iterations."""
    text = json.dumps(_scored_by(_cfg(place, iterations)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.fixture(params=["path", "uri"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = tmp_path / "candidates"
    return str(root) if request.param == "path" else root.as_uri()


def test_more_iterations_keep_the_subfolder(place: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    names = [_name(place, iterations, run) for iterations in (2, 3, 500)]
    assert len(set(names)) == 1
    # a run whose folder was lost
    assert _name(f"{place}/", 4, tmp_path / "again") == names[0]
    other = _cfg(place, 2, SEED=5)
    assert not candidates_place(other, RunFolder(run), _scored_by(other)).endswith(names[0])


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_search_of_an_earlier_version_keeps_its_subfolder(
    is_lost: bool, place: str, tmp_path: Path
) -> None:
    former = _former_name(place, 2)
    (tmp_path / "candidates" / former).mkdir(parents=True)
    run = RunFolder(tmp_path / "run")
    if not is_lost:
        run.path.mkdir()
        run.write_config(_cfg(place, 2).dump(), {})
    assert [_name(place, iterations, run.path) for iterations in (2, 3, 5, 5)] == [former] * 4


def test_of_several_subfolders_that_of_the_run_or_of_the_restored_log_is_used(
    place: str, tmp_path: Path
) -> None:
    former = {iterations: _former_name(place, iterations) for iterations in (2, 3)}
    for name in former.values():
        (tmp_path / "candidates" / name).mkdir(parents=True)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write_config(_cfg(place, 2).dump(), {})
    assert _name(place, 4, run.path) == former[2]
    logged = _scored_by(_cfg(place, 2))
    assert _name(place, 4, tmp_path / "restored", logged=logged) == former[2]
    assert _name(place, 4, tmp_path / "other") == former[3]


def test_without_the_key_candidates_are_in_the_folder_of_the_run(tmp_path: Path) -> None:
    cfg = _cfg("", 2)
    found = candidates_place(cfg, RunFolder(tmp_path), _scored_by(cfg))
    assert found == str(tmp_path / "candidates")


def test_a_uri_that_cannot_be_read_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(tmp_path.as_uri())

    def fail(path: str) -> bool:
        raise OSError("the network is down\nat line 1")

    monkeypatch.setattr(mirror._files, "isdir", fail)
    with pytest.raises(StorageUnavailableError, match=r"cannot read .*: the network is down$"):
        list(mirror.existing(["a"]))
