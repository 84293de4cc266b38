"""detectron2's installer: each step on small trees, the whole once for real (slow)."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from fbnetv3.cli.detectron2 import distinfo
from fbnetv3.cli.detectron2 import install as install_detectron2
from fbnetv3.cli.detectron2.changes import (
    CHANGES,
    EXTENSION_STUB,
    Change,
    InstallError,
    apply_changes,
    changed_text,
)


def test_a_change_is_made() -> None:
    change = Change("a.py", "np.bool)", "bool)", 2)
    assert changed_text("x(np.bool) y(np.bool)", change) == "x(bool) y(bool)"


@pytest.mark.parametrize("text", ["", "np.int)", "np.int) np.int) np.int)"])
def test_text_not_found_as_often_as_expected_is_an_error(text: str) -> None:
    with pytest.raises(
        InstallError, match=r"detectron2/a\.py has 'np\.int\)' \d times, expected 2"
    ):
        changed_text(text, Change("a.py", "np.int)", "int)", 2))


def test_changes_are_applied_to_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import cv2\nold\n")
    apply_changes(tmp_path, [Change("a.py", "import cv2\n", ""), Change("a.py", "old", "new")])
    assert (tmp_path / "a.py").read_text() == "new\n"
    assert (tmp_path / "_C.py").read_text() == EXTENSION_STUB


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"detectron2/b\.py is missing"):
        apply_changes(tmp_path, [Change("b.py", "x", "y")])


def test_no_change_is_undone_by_a_later_one() -> None:
    for number, change in enumerate(CHANGES):
        later = [c for c in CHANGES[number + 1 :] if c.path == change.path]
        assert not any(change.new and c.old in change.new for c in later)


def test_the_stub_explains_itself_on_use() -> None:
    stub: dict = {}
    exec(EXTENSION_STUB, stub)
    with pytest.raises(RuntimeError, match=r"_C\.nms_rotated.*use_fast_impl=False.*--from-git"):
        stub["__getattr__"]("nms_rotated")
    with pytest.raises(AttributeError):
        stub["__getattr__"]("__path__")
    assert stub["has_cuda"]() is False


def test_a_wrong_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(InstallError, match="sha256"):
        install_detectron2.check_sha256(archive)


@pytest.mark.parametrize("name", ["../outside.py", "/outside.py"])
def test_an_archive_can_write_only_into_its_folder(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    folder = tmp_path / "into"
    folder.mkdir()
    with pytest.raises(InstallError):
        install_detectron2.extract(archive, folder)
    assert not (tmp_path / "outside.py").exists()


def _package(root: Path, text: str = "") -> Path:
    package = root / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    (root / "LICENSE").write_text("licence\n")
    return package


def _stage(tmp_path: Path) -> Path:
    staged = tmp_path / "staged"
    staged.mkdir()
    package = _package(tmp_path / "source", "x = 1\n")
    install_detectron2.stage(package, tmp_path / "source" / "LICENSE", staged)
    return staged


def test_what_is_staged_is_a_distribution_with_a_right_record(tmp_path: Path) -> None:
    staged = _stage(tmp_path)
    (dist,) = importlib.metadata.distributions(name="detectron2", path=[str(staged)])
    assert dist.version == install_detectron2.VERSION
    assert "iopath>=0.1.7" in (dist.requires or [])
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(dist.read_text("RECORD") or ""))}
    assert set(rows) == {p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file()}
    digest = hashlib.sha256((staged / "detectron2" / "__init__.py").read_bytes()).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert rows["detectron2/__init__.py"] == [f"sha256={expected}", "6"]


def test_an_older_installation_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "site"
    old = _package(target, "x = 0\n")
    (old / "gone.py").write_text("")
    distinfo.write(
        target,
        name="detectron2",
        version="0.6+fbnetv3.0",
        summary="",
        home_page="",
        licence=target / "LICENSE",
        requires=(),
    )
    install_detectron2.move_into(_stage(tmp_path), target)
    assert (target / "detectron2" / "__init__.py").read_text() == "x = 1\n"
    assert not (target / "detectron2" / "gone.py").exists()
    versions = [d.version for d in importlib.metadata.distributions(path=[str(target)])]
    assert versions == [install_detectron2.VERSION]


def test_an_importable_one_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install_detectron2, "SMOKE_TEST", "import detectron2")
    _package(tmp_path, "x = 1\n")
    assert install_detectron2.main(["--target", str(tmp_path)]) == 0
    assert "left alone" in capsys.readouterr().out
    assert (tmp_path / "detectron2" / "__init__.py").read_text() == "x = 1\n"


def test_a_broken_one_is_named_with_its_reason(tmp_path: Path) -> None:
    _package(tmp_path, "import no_such_module_here\n")
    with pytest.raises(InstallError, match=r"no_such_module_here.*pip uninstall detectron2"):
        install_detectron2.main(["--target", str(tmp_path)])


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str], failed: str) -> None:
        raise InstallError(failed)

    monkeypatch.setattr(install_detectron2, "run_pip", fail)
    with pytest.raises(InstallError, match="is a package index reachable"):
        install_detectron2.main(["--target", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_target_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match="cannot install into"):
        install_detectron2.main(["--target", str(tmp_path / "file" / "x")])


def test_importing_the_installer_loads_no_torch() -> None:
    code = "import sys, fbnetv3.cli.detectron2.install; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.slow
def test_it_installs_lists_and_uninstalls(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    pip = [sys.executable, "-m", "pip", "--python", str(python)]

    assert install_detectron2.main(["--target", str(site)]) == 0
    install_detectron2.check_imports(site / "detectron2")
    loud = {key: value for key, value in os.environ.items() if key != "PIP_QUIET"}
    listed = subprocess.check_output([*pip, "list", "--format=freeze"], text=True, env=loud)
    assert f"detectron2=={install_detectron2.VERSION}" in listed
    assert [p.name for p in site.iterdir() if p.name.startswith(".")] == []
    assert not [p for p in (site / "detectron2").rglob("*.py") if not p.stat().st_mode & 0o044]

    subprocess.run([*pip, "uninstall", "--yes", "detectron2"], check=True, capture_output=True)
    assert [p for p in site.iterdir() if "detectron2" in p.name] == []
