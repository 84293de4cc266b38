"""detectron2's installer: each step on small trees, and the whole once for real (slow)."""

from __future__ import annotations

import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from fbnetv3.cli.detectron2 import install as install_detectron2
from fbnetv3.cli.detectron2.install import PATCH, VERSION, InstallError

_PYPROJECT = f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "{VERSION}"

[tool.setuptools.packages.find]
include = ["detectron2"]
"""


def _added_lines(name: str) -> str:
    """Returns the content of a file that detectron2.patch adds."""
    added = PATCH.read_text().split(f"+++ {name}\n")[1].split("\n--- ")[0].splitlines()
    return "\n".join(line[1:] for line in added if line.startswith("+")) + "\n"


def _sources(root: Path, text: str = "") -> Path:
    """Makes sources of a package called detectron2, readable by their owner alone."""
    package = root / "detectron2"
    package.mkdir(parents=True, mode=0o700)
    (package / "__init__.py").write_text(text)
    (package / "__init__.py").chmod(0o600)
    return root


def _patch(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "small.patch"
    path.write_text(text)
    return path


CHANGE = "--- detectron2/__init__.py\n+++ detectron2/__init__.py\n@@ -1 +1 @@\n-x = 0\n+x = 1\n"
ADDITION = "--- /dev/null\n+++ detectron2/_C.py\n@@ -0,0 +1 @@\n+y = 2\n"


def test_a_patch_changes_and_adds_files(tmp_path: Path) -> None:
    source = _sources(tmp_path / "source", "x = 0\n")
    install_detectron2.apply_patch(source, _patch(tmp_path, "Explanation.\n\n" + CHANGE + ADDITION))
    assert (source / "detectron2" / "__init__.py").read_text() == "x = 1\n"
    assert (source / "detectron2" / "_C.py").read_text() == "y = 2\n"


@pytest.mark.parametrize(
    ("content", "patch"),
    [("z = 0\n", CHANGE), ("x = 0\n", CHANGE.replace("__init__", "missing")), ("", "no patch\n")],
    ids=["other text", "missing file", "empty patch"],
)
def test_a_patch_that_does_not_apply_is_an_error(tmp_path: Path, content: str, patch: str) -> None:
    source = _sources(tmp_path / "source", content)
    with pytest.raises(InstallError, match=r"small\.patch does not apply to pb1-detectron2"):
        install_detectron2.apply_patch(source, _patch(tmp_path, patch))


def test_the_version_is_the_one_in_the_patch() -> None:
    assert f'version = "{VERSION}"' in _added_lines("pyproject.toml").splitlines()


def test_the_stand_in_for_the_extension_explains_itself_on_use() -> None:
    module: dict = {}
    exec(_added_lines("detectron2/_C.py"), module)
    with pytest.raises(RuntimeError, match=r"_C\.nms_rotated.*use_fast_impl=False.*--from-git"):
        module["__getattr__"]("nms_rotated")
    with pytest.raises(AttributeError):
        module["__getattr__"]("__path__")
    assert module["has_cuda"]() is False


def test_another_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(b"something else")
    with pytest.raises(InstallError, match=r"has sha256 .*, expected 5d2e9e51"):
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


def _wheel(tmp_path: Path, name: str, version: str = VERSION) -> Path:
    """Builds a wheel of small sources, whose ``setup.py`` must not run."""
    source = _sources(tmp_path / name, f"x = {version[-1]}\n")
    (source / "pyproject.toml").write_text(_PYPROJECT.replace(VERSION, version))
    (source / "setup.py").write_text("raise RuntimeError('setup.py ran')\n")
    return install_detectron2.build_wheel(source, tmp_path / f"{name}-wheel")


def test_the_wheel_replaces_an_older_installation_whole(tmp_path: Path) -> None:
    target = tmp_path / "site"
    install_detectron2.install_wheel(_wheel(tmp_path, "old", "0.6+fbnetv3.0"), target)
    (target / "detectron2" / "gone.py").write_text("")
    install_detectron2.install_wheel(_wheel(tmp_path, "new"), target)
    module = target / "detectron2" / "__init__.py"
    assert module.read_text() == f"x = {VERSION[-1]}\n"
    assert module.stat().st_mode & 0o444 == 0o444
    assert not (target / "detectron2" / "gone.py").exists()
    (distribution,) = importlib.metadata.distributions(path=[str(target)])
    assert distribution.version == VERSION
    assert {"detectron2/__init__.py", f"detectron2-{VERSION}.dist-info/RECORD"} <= {
        path.as_posix() for path in distribution.files or ()
    }


def test_sources_that_cannot_be_built_are_an_error(tmp_path: Path) -> None:
    source = _sources(tmp_path / "source")
    (source / "pyproject.toml").write_text("[project]\nname = 3\n")
    with pytest.raises(InstallError, match="cannot build a wheel of detectron2"):
        install_detectron2.build_wheel(source, tmp_path)


def test_an_importable_one_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install_detectron2, "SMOKE_TEST", "import detectron2")
    _sources(tmp_path, "x = 1\n")
    assert install_detectron2.main(["--target", str(tmp_path)]) == 0
    assert "left alone" in capsys.readouterr().out
    assert (tmp_path / "detectron2" / "__init__.py").read_text() == "x = 1\n"


def test_a_broken_one_is_named_with_its_reason(tmp_path: Path) -> None:
    _sources(tmp_path, "import no_such_module_here\n")
    with pytest.raises(InstallError, match=r"no_such_module_here.*pip uninstall detectron2"):
        install_detectron2.main(["--target", str(tmp_path)])


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str], failure: str, *pip: object) -> None:
        raise InstallError(failure)

    monkeypatch.setattr(install_detectron2, "run_pip", fail)
    with pytest.raises(InstallError, match="package index is reachable"):
        install_detectron2.main(["--target", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_target_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match="cannot install into"):
        install_detectron2.main(["--target", str(tmp_path / "file" / "x")])


def test_target_and_from_git_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        install_detectron2.main(["--from-git", "--target", "x"])
    assert "--target cannot be used with --from-git" in capsys.readouterr().err


def test_importing_the_installer_loads_no_torch() -> None:
    code = "import sys, fbnetv3.cli.detectron2.install; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("version", "is_replaced"),
    [
        ("23.2.1", False),
        ("26.2rc1", False),
        ("26.2.1", False),
        ("26.3", True),
        ("26.3.1", True),
        ("27.0", True),
    ],
)
def test_a_pip_that_refuses_addresses_is_replaced(
    version: str, is_replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(install_detectron2.importlib.metadata, "version", lambda _: version)
    monkeypatch.setattr(install_detectron2, "run_pip", lambda *call: calls.append(call[0]))
    (pip, *more) = install_detectron2.downloading_pip(tmp_path)
    assert bool(calls) == is_replaced == (not more)
    if is_replaced:
        assert pip == str(tmp_path / "pip-26.2.1-py3-none-any.whl" / "pip")
        assert "--require-hashes" in calls[0]
        assert "pip==26.2.1 --hash=sha256:71138adf" in (tmp_path / "pip.txt").read_text()


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
    assert f"detectron2=={VERSION}" in listed
    assert not [p for p in (site / "detectron2").rglob("*.py") if not p.stat().st_mode & 0o044]
    assert (site / "detectron2" / "model_zoo" / "configs" / "Base-RetinaNet.yaml").is_file()

    subprocess.run([*pip, "uninstall", "--yes", "detectron2"], check=True, capture_output=True)
    assert [p for p in site.iterdir() if "detectron2" in p.name] == []
