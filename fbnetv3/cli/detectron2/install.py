"""Installs detectron2's Python part from the package index, without a compiler or git.

Upstream has no package on the index; it is installed from git and compiles a C++ extension.
The index has a source archive (``pb1-detectron2 0.6``) whose Python files are those of upstream
commit 72e9dd6e, without the C++ sources. It is downloaded, checked by its sha256 before any of
its code runs, changed where newer Python, numpy, Pillow and torch demand it (``CHANGES``), and
put into the running environment with a ``dist-info``, so that pip lists and uninstalls it.

    fbnetv3-install-detectron2               # from the index, leaves an importable one alone
    fbnetv3-install-detectron2 --from-git    # upstream, compiled: needs git, a C++ compiler
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fbnetv3.cli import run_main
from fbnetv3.cli.detectron2 import distinfo
from fbnetv3.cli.detectron2.changes import InstallError, apply_changes

SDIST = "pb1-detectron2"
SDIST_VERSION = "0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
UPSTREAM = "git+https://github.com/facebookresearch/detectron2.git"
UPSTREAM_COMMIT = "72e9dd6e8513d3be1a242c2c75ea5529c71dd087"
# The number after the plus grows with CHANGES: an older installation by this tool is replaced.
VERSION = f"{SDIST_VERSION}+fbnetv3.2"
BUILD_NEEDS = ("pip", "setuptools", "wheel", "torch")
REQUIRES = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch>=2.10",
    "torchvision",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)
SMOKE_TEST = "import detectron2.engine, detectron2.evaluation, detectron2.model_zoo"


class Found(NamedTuple):
    """An installed detectron2: its folder, and its version where pip knows one."""

    path: Path
    version: str | None


def find_installed(target: Path | None = None) -> Found | None:
    """Returns the detectron2 of the running environment, or of ``target``, without importing it."""
    if target is None:
        spec = importlib.util.find_spec("detectron2")
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent
    else:
        path = target / "detectron2"
        if not (path / "__init__.py").is_file():
            return None
    named = importlib.metadata.distributions(name="detectron2", path=[str(path.parent)])
    return Found(path, next((dist.version for dist in named), None))


def check_imports(path: Path) -> None:
    """Imports detectron2 from ``path``'s parent in a process of its own.

    Raises:
        InstallError: it can't be imported; the message ends with the reason.
    """
    environment = {**os.environ, "PYTHONPATH": str(path.parent)}
    run = subprocess.run(
        [sys.executable, "-c", SMOKE_TEST], env=environment, capture_output=True, text=True
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise InstallError(
            f"{path} does not import ({reason}); "
            f"`{sys.executable} -m pip uninstall detectron2`, then run this again"
        )


def check_build_needs() -> None:
    """Raises InstallError if the environment lacks what reading the source archive needs."""
    missing = [name for name in BUILD_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise InstallError(
            f"{sys.executable} lacks {', '.join(missing)}; "
            f"install fbnetv3 first (`pip install .`), it brings them"
        )
    if not hasattr(tarfile, "data_filter"):
        raise InstallError("this Python can't unpack archives safely; use 3.10.12, 3.11.4 or newer")


def run_pip(arguments: Sequence[str], failed: str) -> None:
    """Runs pip of the running environment; its last error line ends the message of a failure."""
    run = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False
    )
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or run.stderr.strip().splitlines() or ["no message"])[-1]
        raise InstallError(f"{failed}: {reason}")


def download(folder: Path) -> Path:
    """Downloads the source archive into ``folder``; pip checks its sha256 before it is opened."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{SDIST}=={SDIST_VERSION} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    flags = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes"]
    run_pip(
        ["download", *flags, "--dest", str(folder), "--requirement", str(wanted)],
        f"cannot download {SDIST} {SDIST_VERSION} (is a package index reachable? see `pip config`)",
    )
    archive = folder / f"{SDIST}-{SDIST_VERSION}.tar.gz"
    check_sha256(archive)
    return archive


def check_sha256(archive: Path) -> None:
    """Raises InstallError if ``archive`` is not the file that CHANGES were written for."""
    if not archive.is_file():
        raise InstallError(f"{archive} is missing after the download")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        raise InstallError(f"{archive} has sha256 {found}, expected {SDIST_SHA256}; delete it")


def extract(archive: Path, folder: Path) -> Path:
    """Unpacks ``archive`` into ``folder`` and returns the folder of detectron2's Python files."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise InstallError(f"cannot unpack {archive}: {error}") from error
    package = folder / f"{SDIST}-{SDIST_VERSION}" / "detectron2"
    if not (package / "__init__.py").is_file():
        raise InstallError(f"{archive} holds no detectron2 package")
    return package


def stage(package: Path, licence: Path, root: Path) -> None:
    """Lays out ``package`` and its dist-info under ``root`` as they will lie in site-packages."""
    for source in sorted(p for p in package.rglob("*") if p.is_file()):
        copy = root / "detectron2" / source.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)  # not its mode: the archive's is for its owner only
    distinfo.write(
        root,
        name="detectron2",
        version=VERSION,
        summary=f"Python part of detectron2 {SDIST_VERSION} ({UPSTREAM_COMMIT[:8]}), no extension",
        home_page="https://github.com/facebookresearch/detectron2",
        licence=licence,
        requires=REQUIRES,
    )


def move_into(staged: Path, target: Path) -> None:
    """Renames what is staged into ``target``, after moving older copies out of the way.

    The package itself comes last: after a crash in between it is missing, not half there, and
    the next run makes it whole.
    """
    old = staged / "old"
    old.mkdir()
    new = sorted(staged.glob("detectron2*"), key=lambda path: path.name == "detectron2")
    for path in (*target.glob("detectron2-*.dist-info"), target / "detectron2"):
        if path.exists():
            path.rename(old / path.name)
    for path in new:
        path.rename(target / path.name)


def install_from_index(target: Path) -> None:
    """Downloads, checks, changes and installs detectron2 into the folder ``target``.

    Raises:
        InstallError: any of these failed; ``target`` is as it was before.
    """
    check_build_needs()
    try:
        target.mkdir(parents=True, exist_ok=True)
        # beside its goal, so that the last step is a rename within one file system
        with tempfile.TemporaryDirectory(prefix=".detectron2-", dir=target) as name:
            work, staged = Path(name) / "work", Path(name) / "staged"
            work.mkdir()
            staged.mkdir()
            package = extract(download(work), work)
            apply_changes(package)
            stage(package, package.parent / "LICENSE", staged)
            check_imports(staged / "detectron2")
            move_into(staged, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InstallError(
            f"cannot install into {target}: {reason}; use a virtual environment of your own"
        ) from error


def install_from_git() -> None:
    """Installs the pinned upstream commit with pip; this compiles its extension."""
    run_pip(
        ["install", "--no-build-isolation", f"{UPSTREAM}@{UPSTREAM_COMMIT}"],
        "cannot install upstream detectron2 (it needs git, github.com and a C++ compiler)",
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-install-detectron2",
        description="Installs detectron2 from the package index into the running environment.",
    )
    parser.add_argument("--from-git", action="store_true", help="compile upstream's pinned commit")
    parser.add_argument("--target", type=Path, help="a folder instead of site-packages")
    arguments = parser.parse_args(argv)
    if arguments.from_git and arguments.target:
        parser.error("--target is for the package index, not for --from-git")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Installs detectron2 unless an importable one is there; returns the exit status."""
    arguments = parse(argv)
    found = find_installed(arguments.target)
    ours = found is not None and (found.version or "").startswith(f"{SDIST_VERSION}+fbnetv3.")
    if found is not None and not (ours and found.version != VERSION):
        if not ours:
            check_imports(found.path)
        print(f"detectron2 {found.version or ''} is installed in {found.path}: left alone")
        return 0
    if arguments.from_git:
        install_from_git()
    else:
        install_from_index(arguments.target or Path(sysconfig.get_path("purelib")))
    print(f"installed detectron2 {UPSTREAM_COMMIT[:8]}")
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
