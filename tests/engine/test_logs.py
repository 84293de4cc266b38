"""Logging to the terminal and to log.txt."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from fbnetv3.engine.logs import setup_logging, start_log_file
from fbnetv3.errors import FBNetError
from fbnetv3.io import WriteError

NAMES = ("fbnetv3", "detectron2", "fvcore")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(log.level, log.handlers, log.propagate) for log in loggers]
    yield
    for log, (level, handlers, propagate) in zip(loggers, before, strict=True):
        for handler in set(log.handlers) - set(handlers):
            handler.close()
        log.level, log.handlers, log.propagate = level, handlers, propagate


def test_log_lines_go_to_a_redirected_stderr(tmp_path: Path) -> None:
    setup_logging(tmp_path, rank=0)
    with redirect_stderr(io.StringIO()) as bar:
        logging.getLogger("fbnetv3.engine").info("hello")
    assert bar.getvalue().endswith(" hello\n")
    start_log_file()
    assert (tmp_path / "log.txt").read_text().endswith(" hello\n")


def test_the_file_begins_with_the_lines_before_its_start(tmp_path: Path) -> None:
    folder, log = tmp_path / "new" / "run", logging.getLogger("fbnetv3")
    setup_logging(folder, rank=0)
    log.info("before")
    assert list(tmp_path.iterdir()) == []
    start_log_file()
    start_log_file()
    log.info("after")
    setup_logging(folder, rank=0)  # of a training that resumes the run
    log.info("again")
    start_log_file()
    lines = (folder / "log.txt").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["before", "after", "again"]


@pytest.mark.parametrize(("folder", "rank"), [(None, 0), ("run", 1)])
def test_no_file_is_started_where_none_was_asked_for(
    folder: str | None, rank: int, tmp_path: Path
) -> None:
    setup_logging(folder and tmp_path / folder, rank)
    start_log_file()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/run", "file/run/below"])
def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write in OUTPUT_DIR"):
        setup_logging(tmp_path / name, rank=0)


def test_handled_errors_are_logged_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(None, rank=0)
    log = logging.getLogger("detectron2.engine.train_loop")
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection reset by peer")
    for error in (FBNetError("printed elsewhere"), lost, ValueError("a bug")):
        try:
            raise error
        except Exception:
            log.exception("during training")
    text = capsys.readouterr().err
    assert "printed elsewhere" not in text
    assert "gloo" not in text
    assert "ValueError: a bug" in text


def test_other_ranks_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(None, rank=1)
    logging.getLogger("fbnetv3").info("not this")
    logging.getLogger("fbnetv3").warning("but this")
    text = capsys.readouterr().err
    assert "not this" not in text
    assert "but this" in text
