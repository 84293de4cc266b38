"""Downloads, and every way in which they can fail, against a local server."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save

from fbnetv3.io import WriteError
from fbnetv3.weights import download, transfer
from fbnetv3.weights.download import fetch
from fbnetv3.weights.errors import DownloadError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.records import WeightRecord

CHUNK = 1 << 16  # bytes that are written at a time
Make = Callable[..., WeightRecord]


def _files(cache: Path) -> list[str]:
    return sorted(os.listdir(cache)) if cache.is_dir() else []


def _refused(record: WeightRecord, cache: Path, words: str, **kwargs: Any) -> str:
    """Checks that a fetch fails with one helpful line, and leaves nothing in the cache."""
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(record, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert str(record.url) in message
    assert str(cache / record.filename) in message  # where to put the file by hand
    assert _files(cache) == []
    return message


def test_a_file_is_fetched_once_and_pinned(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    site.body = weights
    record = make_record()
    path = fetch(record)
    assert path == cache / "fbnetv3_a0.test.safetensors"
    assert path.read_bytes() == weights
    pin = (cache / f"{path.name}.sha256").read_text().split()
    assert pin == [hashlib.sha256(weights).hexdigest(), path.name]
    assert fetch(record) == path
    assert len(site.requests) == 1


def test_the_stated_hash_is_checked(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    site.body = weights
    good = make_record(sha256=hashlib.sha256(weights).hexdigest(), size=len(weights))
    assert fetch(good).is_file()
    bad = make_record(tag="bad", sha256="0" * 64)
    with pytest.raises(DownloadError, match=f"sha256 is .*, expected {'0' * 64}"):
        fetch(bad)
    assert not (cache / bad.filename).exists()


def test_a_wrong_hash_leaves_nothing(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    site.body = weights
    _refused(make_record(sha256="1" * 64), cache, "sha256")


def test_a_wrong_size_leaves_nothing(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    site.body = weights
    _refused(make_record(size=len(weights) + 1), cache, f"{len(weights)} bytes, the record says")


def test_a_pinned_file_that_changes_is_refused(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    site.body = weights
    record = make_record()
    path = fetch(record)
    path.write_bytes(weights[:-1] + b"\x7f")
    with pytest.raises(DownloadError, match=r"expected .*delete it") as caught:
        fetch(record)
    assert str(path) in str(caught.value)
    # deleting the file alone keeps the pin: another file under that address is refused
    path.unlink()
    site.body = weights[:-1] + b"\x7f"
    with pytest.raises(DownloadError, match="expected"):
        fetch(record)
    assert not path.exists()


@pytest.fixture
def large(site: Any) -> bytes:
    """A file of several chunks on the server; what arrives of a chunk that breaks is lost."""
    site.body = save({"head.fc.weight": torch.arange(1e5)})
    return site.body


def test_a_server_that_dies_midway(site: Any, cache: Path, large: bytes, make_record: Make) -> None:
    site.broken = [CHUNK] * transfer.ATTEMPTS
    words = f"connection ended after {CHUNK} of {len(large)} bytes"
    _refused(make_record(), cache, words)
    assert site.requests == [""] * transfer.ATTEMPTS


def test_a_broken_download_starts_again(site: Any, large: bytes, make_record: Make) -> None:
    site.broken = [CHUNK, 2 * CHUNK]
    assert fetch(make_record()).read_bytes() == large
    assert site.requests == ["", "", ""]  # without an ETag, the rest may be of another file


def test_a_broken_download_is_resumed_where_the_server_can(
    site: Any, large: bytes, make_record: Make
) -> None:
    site.etag, site.broken = '"v1"', [CHUNK, 2 * CHUNK]
    assert fetch(make_record()).read_bytes() == large
    assert site.requests == ["", f"bytes={CHUNK}-", f"bytes={3 * CHUNK}-"]


def test_a_broken_download_behind_a_redirect_is_resumed(
    site: Any, large: bytes, make_record: Make
) -> None:
    site.etag, site.moved, site.broken = '"v1"', True, [CHUNK, 2 * CHUNK]
    assert fetch(make_record()).read_bytes() == large
    ranges = ["", f"bytes={CHUNK}-", f"bytes={3 * CHUNK}-"]
    assert site.requests == [header for header in ranges for _ in range(2)]


def test_a_broken_download_behind_a_redirect_starts_again_where_it_cannot_be_resumed(
    site: Any, large: bytes, make_record: Make
) -> None:
    site.moved, site.broken = True, [CHUNK, 2 * CHUNK]
    assert fetch(make_record()).read_bytes() == large
    assert site.requests == [""] * 6


def test_a_busy_server_leaves_a_broken_download_as_it_is(
    site: Any, large: bytes, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.etag, site.broken = '"v1"', [CHUNK]
    statuses = iter([503, 200])

    def wait(seconds: float) -> None:
        site.status = next(statuses)

    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=wait))
    assert fetch(make_record()).read_bytes() == large
    assert site.requests == ["", f"bytes={CHUNK}-", f"bytes={CHUNK}-"]


def test_a_file_that_changes_on_the_server_is_not_resumed(
    site: Any, large: bytes, weights: bytes, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.etag, site.broken = '"v1"', [CHUNK]

    def publish(seconds: float) -> None:
        site.body, site.etag = weights, '"v2"'

    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=publish))
    assert fetch(make_record()).read_bytes() == weights
    assert site.requests == ["", f"bytes={CHUNK}-"]


def test_a_truncated_file(site: Any, cache: Path, weights: bytes, make_record: Make) -> None:
    site.body = weights[:-5]  # and the server sends a matching length
    _refused(make_record(), cache, "truncated or not a weights file")


def test_a_web_page_instead_of_weights(site: Any, cache: Path, make_record: Make) -> None:
    site.body = b"<!DOCTYPE html><html>please log in</html>"
    _refused(make_record(), cache, "a web page")


def test_an_empty_file(site: Any, cache: Path, make_record: Make) -> None:
    _refused(make_record(), cache, "empty")


def test_a_missing_file(site: Any, cache: Path, make_record: Make) -> None:
    site.status = 404
    _refused(make_record(), cache, "answers 404")
    assert len(site.requests) == 1  # another attempt would not help


def test_a_busy_server_is_asked_again(site: Any, cache: Path, make_record: Make) -> None:
    site.status = 503
    _refused(make_record(), cache, "answers 503")
    assert len(site.requests) == transfer.ATTEMPTS


def test_a_server_that_does_not_answer(site: Any, cache: Path, make_record: Make) -> None:
    site.delay = 0.6
    _refused(make_record(), cache, "no answer within 0.2 s", timeout=0.2)


def test_no_network(cache: Path, make_record: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _refused(make_record(url=f"http://127.0.0.1:{port}/m.pth"), cache, "refused")


def test_no_such_host(cache: Path, make_record: Make) -> None:
    _refused(make_record(url="http://no-such-host.invalid/m.pth"), cache, "no-such-host")


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(
    site: Any, cache: Path, tmp_path: Path, make_record: Make, form: str
) -> None:
    proof, file = tmp_path / "it-ran", tmp_path / "attack"
    if form == "torch":
        torch.save({"state_dict": _Attack(proof)}, file)
    else:
        file.write_bytes(pickle.dumps(_Attack(proof)))
    site.body = file.read_bytes()
    url = site.url.replace(".safetensors", ".pth")
    _refused(make_record(url=url), cache, "nothing in it was run")
    assert not proof.exists()
    with open(file, "rb") as raw:  # the attack itself works
        if form == "pickle":
            pickle.load(raw)
            assert proof.exists()


def test_a_file_that_the_user_downloaded_is_checked_and_pinned(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    record = make_record()
    path = cache / record.filename
    cache.mkdir()
    path.write_bytes(weights)
    assert fetch(record) == path
    assert download.pin_path(path).is_file()
    assert site.requests == []
    other = make_record(tag="broken")
    (cache / other.filename).write_bytes(b"<html>")
    with pytest.raises(DownloadError, match="web page"):
        fetch(other)
    assert not download.pin_path(cache / other.filename).exists()


def test_many_at_once_download_once(
    site: Any, cache: Path, weights: bytes, make_record: Make
) -> None:
    site.body, site.delay = weights, 0.1
    record, got = make_record(), []
    threads = [threading.Thread(target=lambda: got.append(fetch(record))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in got] == [weights] * 4
    assert len(site.requests) == 1


def test_processes_share_the_cache(site: Any, cache: Path, weights: bytes) -> None:
    site.body, site.delay = weights, 0.1
    code = (
        "from fbnetv3.zoo import WeightRecord, fetch; print(fetch(WeightRecord("
        "name='fbnetv3_a0', tag='t', layout='fbnetv3', resolution=224, resize=256, "
        f"licence='none', url={site.url!r})))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outs = [run.communicate()[0].strip() for run in runs]
    assert outs == [str(cache / "fbnetv3_a0.t.safetensors")] * 2
    assert len(site.requests) == 1


def test_an_unwritable_cache(
    site: Any, tmp_path: Path, weights: bytes, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = weights
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FBNETV3_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match="FBNETV3_CACHE"):
        fetch(make_record())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_not_blamed_on_the_network(
    site: Any, weights: bytes, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = weights

    class ToFullDisk(transfer.Transfer):
        def __init__(self, url: str, target: Path, timeout: float) -> None:
            super().__init__(url, Path("/dev/full"), timeout)

    monkeypatch.setattr(download, "Transfer", ToFullDisk)
    with pytest.raises(WriteError, match="No space left"):
        fetch(make_record())


def test_a_broken_pin_is_named(site: Any, cache: Path, weights: bytes, make_record: Make) -> None:
    site.body = weights
    record = make_record()
    pin = download.pin_path(fetch(record))
    pin.write_text("")
    with pytest.raises(DownloadError, match=r"\.sha256"):
        fetch(record)


def test_a_missing_packaged_file_is_named(make_record: Make) -> None:
    with pytest.raises(DownloadError, match="missing, as a wheel leaves out some files"):
        fetch(make_record(url=None, path="none.safetensors"))


def test_the_old_torch_format_is_taken(site: Any, tmp_path: Path, make_record: Make) -> None:
    file = tmp_path / "old.pth"
    tensors = {"a": torch.arange(3.0)}
    torch.save({"state_dict": tensors}, file, _use_new_zipfile_serialization=False)
    site.body = file.read_bytes()
    path = fetch(make_record(url=site.url.replace(".safetensors", ".pth")))
    assert path.suffix == ".pth"
    assert torch.equal(read_tensors(path)[0]["a"], tensors["a"])


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_progress_is_shown_only_for_long_downloads(
    patience: float,
    site: Any,
    weights: bytes,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", patience)
    site.body = weights
    fetch(make_record())
    assert ("model.safetensors" in capsys.readouterr().err) == (patience == 0)
