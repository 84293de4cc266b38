"""Candidate folders at a URI: of a local folder, and of a bucket on an S3 server on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import requests

from fbnetv3.search import InProcess, SearchError, Trial
from fbnetv3.search.errors import StorageUnavailableError
from fbnetv3.search.fbnet.mirror import Mirror
from tests.search.executors.running import evaluate_all

pytest.importorskip("detectron2")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of an empty bucket."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        # Where the tests of this file run in two parts, the second part starts a second server in
        # the same process: with the buckets of the first, and its address in fsspec's cache.
        requests.post(f"http://{host}:{port}/moto-api/reset", timeout=60).raise_for_status()
        s3fs.S3FileSystem.clear_instance_cache()
        fsspec.filesystem("s3").mkdir("candidates")
        yield "s3://candidates"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URI without files."""
    if request.param == "bucket":
        return f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return (tmp_path / "far").as_uri()


def _names(place: str, candidate: str) -> set[str]:
    """Returns the names of a candidate's files at a URI."""
    files, root = fsspec.core.url_to_fs(place, use_listings_cache=False)
    files.invalidate_cache()
    folder = f"{root}/{candidate}"
    return {path[len(folder) + 1 :] for path in files.find(folder, detail=False)}


def test_another_node_finds_what_was_pushed(place: str) -> None:
    Mirror(place).check()
    with Mirror(place).folder("a") as (folder, copy):
        assert list(folder.iterdir()) == []
        (folder / "scores.json").write_text("{}")
        (folder / "checkpoint_1.pt").write_bytes(b"one")
        copy.push()
        (folder / "scores.json").write_text('{"1": 2.0}')
        (folder / "checkpoint_1.pt").unlink()
        (folder / "checkpoint_2.pt").write_bytes(b"two")
        copy.push()
        (folder / "scores.json").write_text("lost with the node")
    assert not folder.exists()
    assert _names(place, "a") == {"scores.json", "checkpoint_2.pt"}
    with Mirror(place).folder("a") as (folder, copy):
        assert (folder / "scores.json").read_text() == '{"1": 2.0}'
        assert (folder / "checkpoint_2.pt").read_bytes() == b"two"
        (folder / "checkpoint_2.pt").unlink()
        copy.push()
    assert _names(place, "a") == {"scores.json"}


def _write(folder: Path, *names: str) -> None:
    """Writes files, each with its name as its content."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


RECORDS = {"scores.json", "checkpoint_1.pt", "result.json"}
OF_A_WRITER = {"wandb/run-1/files/config.yaml", "wandb/run-1/checkpoint_9.pt", "wandb/debug.log"}


def test_subfolders_are_copied_with_all_other_files(place: str) -> None:
    with Mirror(place).folder("a") as (folder, copy):
        _write(folder, *RECORDS, *OF_A_WRITER, "wandb/.cache/x", "wandb/.tmp")
        (folder / "wandb" / "latest-run").symlink_to(folder / "wandb" / "run-1")
        (folder / "wandb" / "nothing").symlink_to(folder / "missing")
        os.mkfifo(folder / "wandb" / "pipe")
        copy.push()
    assert _names(place, "a") == RECORDS | OF_A_WRITER
    with Mirror(place).folder("a") as (folder, copy):
        paths = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.relative_to(folder).as_posix() for path in paths} == RECORDS | OF_A_WRITER
        assert all(path.read_text() == path.relative_to(folder).as_posix() for path in paths)
        (folder / "wandb" / "debug.log").unlink()
        copy.push()
    assert _names(place, "a") == RECORDS | OF_A_WRITER - {"wandb/debug.log"}


@pytest.mark.parametrize("name", [".scores.json.123", "wandb/.debug.log.123"])
def test_an_incomplete_upload_is_ignored_and_removed(place: str, name: str) -> None:
    with Mirror(place).folder("a") as (folder, copy):
        _write(folder, "scores.json", "wandb/debug.log")
        copy.push()
    files, root = fsspec.core.url_to_fs(place)
    files.pipe_file(f"{root}/a/{name}", b"{")
    with Mirror(place).folder("a") as (folder, _):
        assert sorted(path.name for path in folder.iterdir()) == ["scores.json", "wandb"]
    assert _names(place, "a") == {"scores.json", "wandb/debug.log"}


@pytest.mark.parametrize("name", ["../outside", "wandb/../../outside", "//outside", "wandb/"])
def test_a_name_in_a_bucket_that_is_no_path_in_the_folder_is_left_out(
    bucket: str, tmp_path: Path, name: str
) -> None:
    place = f"{bucket}/{tmp_path.name}"
    files, root = fsspec.core.url_to_fs(place)
    files.pipe_file(f"{root}/a/scores.json", b"{}")
    files.call_s3("put_object", Bucket=root.split("/")[0], Key=f"{tmp_path.name}/a/{name}")
    with Mirror(place).folder("a") as (folder, _):
        assert [path.name for path in folder.iterdir()] == ["scores.json"]
        assert [path.name for path in folder.parent.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("failing", "missing"),
    [
        ("arch.yaml", {"arch.yaml"}),
        ("wandb/debug.log", {"wandb/debug.log"}),
        ("scores.json", {"scores.json", "checkpoint_2.pt", "result.json"}),
        ("checkpoint_2.pt", {"checkpoint_2.pt", "result.json"}),
        ("result.json", {"result.json"}),
    ],
)
def test_a_file_that_fails_keeps_only_later_records_from_being_uploaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
    missing: set[str],
) -> None:
    place, old = (tmp_path / "far").as_uri(), {"checkpoint_1.pt", "log.txt"}
    new = {"arch.yaml", "wandb/debug.log", "scores.json", "checkpoint_2.pt", "result.json"}
    with Mirror(place).folder("a") as (folder, copy):
        _write(folder, *old)
        copy.push()
        for name in old:
            (folder / name).unlink()
        _write(folder, *new)
        put = copy._files.put_file

        def put_others(path: str, remote: str) -> None:
            put(path, remote)
            if path == str(folder / failing):
                raise ConnectionError("lost")

        with monkeypatch.context() as patch:
            patch.setattr(copy._files, "put_file", put_others)
            copy.push()
        is_record = "result.json" in missing
        assert _names(place, "a") == new - missing | (old if is_record else set())
        assert f"cannot copy a/{failing} to" in caplog.text
        copy.push()
    assert _names(place, "a") == new


@pytest.mark.parametrize(
    ("failing", "is_record"),
    [("arch.yaml", False), ("wandb/debug.log", False), ("checkpoint_1.pt", True)],
)
def test_a_file_that_cannot_be_downloaded_is_left_out_unless_the_training_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, is_record: bool
) -> None:
    place = (tmp_path / "far").as_uri()
    names = {"arch.yaml", "wandb/debug.log", *RECORDS}
    with Mirror(place).folder("a") as (folder, copy):
        _write(folder, *names)
        copy.push()
    mirror = Mirror(place)
    get = mirror._files.get_file

    def get_others(path: str, local: str) -> None:
        get(path, local)
        if path.endswith(failing):
            raise ConnectionError("lost")

    monkeypatch.setattr(mirror._files, "get_file", get_others)
    if is_record:
        with pytest.raises(StorageUnavailableError, match="lost"), mirror.folder("a"):
            pass
        return
    with mirror.folder("a") as (folder, copy):
        left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert left == names - {failing}
        copy.push()
    assert _names(place, "a") == names


def test_a_server_that_has_gone_is_not_asked_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def fail(path: str, *_: object, **__: object) -> None:
        asked.append(path)
        raise ConnectionError("gone")

    with Mirror((tmp_path / "far").as_uri()).folder("a") as (folder, copy):
        _write(folder, *OF_A_WRITER, *RECORDS)
        monkeypatch.setattr(copy._files, "put_file", fail)
        monkeypatch.setattr(copy._files, "ls", fail)
        with pytest.raises(ConnectionError, match="gone"):
            copy.push()
    assert len(asked) == 2  # one file, and the folder


def test_a_checkpoint_is_uploaded_after_its_scores_and_the_result_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, pushed = Mirror((tmp_path / "far").as_uri()), list[str]()
    with mirror.folder("a") as (folder, copy):
        for name in ("arch.yaml", "checkpoint_1.pt", "result.json", "scores.json", "w.safetensors"):
            (folder / name).write_text(name)
        monkeypatch.setattr(copy._files, "put_file", lambda path, _: pushed.append(path))
        monkeypatch.setattr(copy._files, "mv", lambda *_: None)
        copy.push()
    assert len(pushed) == 5
    assert [Path(path).name for path in pushed[-2:]] == ["checkpoint_1.pt", "result.json"]


@pytest.mark.parametrize("uri", ["nowhere://x/y", "s3a+b://x"])
def test_an_unknown_kind_of_uri_is_one_error(uri: str) -> None:
    with pytest.raises(SearchError, match=r"SEARCH\.CANDIDATES="):
        Mirror(uri)


def test_a_uri_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match=r"cannot write SEARCH\.CANDIDATES="):
        Mirror((tmp_path / "file" / "run").as_uri()).check()


OPTS: list[Any] = [
    *("SEARCH.FIX", ["resolution", 16, "stage1_n", 1, "stage2_n", 1, "stage3_n", 1]),
    *("SOLVER.MAX_EPOCHS", 4.0, "DATA.TRAIN_LIMIT", 256),
]


class Lost(BaseException):
    """Stands for the loss of a node: no code catches it."""


def test_a_candidate_whose_node_was_lost_resumes_on_another(place: str, tmp_path: Path) -> None:
    from fbnetv3.resources import find_config
    from fbnetv3.search.fbnet.config import SearchSetup
    from fbnetv3.search.fbnet.evaluator import TrainEvaluator
    from fbnetv3.search.fbnet.keys import get_search_cfg

    cfg = get_search_cfg()
    cfg.merge_from_file(str(find_config("search/digits.yaml")))
    cfg.merge_from_list(OPTS)
    setup = SearchSetup(cfg)
    space = setup.space.space
    levels = space.canonical(space.sizes[None] // 2)

    def trial() -> Trial:
        return Trial(space.ids(levels)[0], 0, 0, space.configs(levels)[0])

    whole = trial()
    expected = TrainEvaluator(setup, str(tmp_path / "candidates"))(whole)
    lost, far = trial(), TrainEvaluator(setup, place)

    def lose(epoch: int, score: float) -> None:
        if epoch == 3:
            raise Lost

    lost.on_report = lose
    with pytest.raises(Lost):
        far(lost)
    names = _names(place, lost.id)
    assert sum(name.startswith("checkpoint_") for name in names) == 1
    again, epochs = trial(), list[int]()
    again.on_report = lambda epoch, _: epochs.append(epoch)
    assert far(again) == expected
    assert again.reports == whole.reports
    assert epochs == [1, 2, 3, 4]  # the first two come from the uploaded scores
    assert "result.json" in _names(place, lost.id)
    assert not any(name.startswith("checkpoint_") for name in _names(place, lost.id))


def test_an_unreachable_uri_fails_no_candidate(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fbnetv3.search.fbnet.config import SearchSetup
    from fbnetv3.search.fbnet.evaluator import TrainEvaluator
    from fbnetv3.search.fbnet.keys import get_search_cfg

    fsspec.filesystem("s3").clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    evaluate = TrainEvaluator(SearchSetup(get_search_cfg()), f"{bucket}/gone")
    try:
        with pytest.raises(
            StorageUnavailableError, match=r"cannot read SEARCH\.CANDIDATES='s3://.*/gone': "
        ) as error:
            evaluate_all(InProcess(), evaluate, [Trial("a", 0, 0, {})])
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
    assert "the same command continues" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_failed_upload_is_repeated_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = (tmp_path / "far").as_uri()
    with Mirror(place).folder("a") as (folder, copy):
        (folder / "scores.json").write_text("{}")
        with monkeypatch.context() as patch:
            patch.setattr(copy._files, "put_file", lambda *_: 1 / 0)
            copy.try_push()
        assert "cannot copy a/scores.json to" in caplog.text
        copy.try_push()
    assert _names(place, "a") == {"scores.json"}
