"""``fbnetv3-install-detectron2``: installs detectron2's Python part from the package index.

Upstream has no package on the index; it is installed from git and compiles a C++ extension.
The index has a source archive (``pb1-detectron2 0.6``) whose Python files are those of upstream
commit 72e9dd6e, without the C++ sources. The archive's sha256 is checked before it is opened,
``detectron2.patch`` is applied to the unpacked files, and pip builds and installs the wheel.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fbnetv3.cli import run_main
from fbnetv3.cli.version_option import version_option
from fbnetv3.errors import FBNetError
from fbnetv3.requires import require

SDIST = "pb1-detectron2"
SDIST_VERSION = "0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
UPSTREAM = "git+https://github.com/facebookresearch/detectron2.git"
UPSTREAM_COMMIT = "72e9dd6e8513d3be1a242c2c75ea5529c71dd087"
PATCH = Path(__file__).with_name("detectron2.patch")
# The version in detectron2.patch. Change the last number with each change of the patched Python
# files: an installation with another number is then replaced.
VERSION = f"{SDIST_VERSION}+fbnetv3.2"
BUILD_REQUIREMENTS = ("pip", "setuptools", "wheel", "torch", "patch_ng", "fvcore")
SMOKE_TEST = "import detectron2.engine, detectron2.evaluation, detectron2.model_zoo"
# From 26.3 on, pip refuses source archives with a direct-URL dependency (``name @ https://...``),
# even one of an extra, as in detectron2's extra "all". OLDER_PIP then downloads the archive.
STRICT_PIP = (26, 3)
OLDER_PIP = "26.2.1"
OLDER_PIP_SHA256 = "71138adf1f4ca900cdb7d289c21b7494329f2332b6d85f0e1c42108c0384ed3e"
_PIP = ("-m", "pip")
_EPILOG = """\
examples:
  %(prog)s              install from the package index
  %(prog)s --from-git   compile upstream with its C++ extension (needs git and a compiler)
"""


class InstallError(FBNetError):
    """detectron2 could not be downloaded, patched, built or installed."""


class Installed(NamedTuple):
    """An installed detectron2.

    Attributes:
        path: Folder of its Python files.
        version: Version in its metadata; None if it has no metadata.
    """

    path: Path
    version: str | None

    @property
    def is_from_this_installer(self) -> bool:
        """Whether any version of this installer made the installation."""
        return (self.version or "").startswith(f"{SDIST_VERSION}+fbnetv3.")


def find_installed(target: Path | None = None) -> Installed | None:
    """Returns the installed detectron2 without importing it; None if there is none.

    Args:
        target: Folder to look in; None looks in the running environment.
    """
    if target is None:
        spec = importlib.util.find_spec("detectron2")
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent
    else:
        path = target / "detectron2"
        if not (path / "__init__.py").is_file():
            return None
    distributions = importlib.metadata.distributions(name="detectron2", path=[str(path.parent)])
    return Installed(path, next((dist.version for dist in distributions), None))


def check_imports(path: Path) -> None:
    """Imports detectron2 in a separate process.

    Args:
        path: Folder of detectron2's Python files.

    Raises:
        InstallError: The import fails; the message gives the reason.
    """
    environment = {**os.environ, "PYTHONPATH": str(path.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SMOKE_TEST], env=environment, capture_output=True, text=True
    )
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no error message"])[-1]
        raise InstallError(f"cannot import detectron2 from {path}: {reason}")


def check_installed(installed: Installed) -> None:
    """Raises InstallError, with what to do, if an installed detectron2 cannot be imported."""
    try:
        check_imports(installed.path)
    except InstallError as error:
        raise InstallError(
            f"{error}; run `{sys.executable} -m pip uninstall detectron2`, then install it again"
        ) from error


def check_build_requirements() -> None:
    """Raises InstallError if a package that the build needs is missing, or Python is too old."""
    missing = [name for name in BUILD_REQUIREMENTS if importlib.util.find_spec(name) is None]
    if missing:
        pip = "python -m ensurepip, and then " if "pip" in missing else ""
        raise InstallError(
            f"{sys.executable} cannot build detectron2 without {', '.join(missing)}; "
            f"install them with: {pip}python -m pip install 'fbnetv3[train]'"
        )
    if not hasattr(tarfile, "data_filter"):
        raise InstallError(
            "this Python cannot unpack archives safely; use Python 3.10.12, 3.11.4 or newer"
        )


def run_pip(arguments: Sequence[str], failure: str, pip: Sequence[str] = _PIP) -> None:
    """Runs pip in the running environment.

    Args:
        arguments: The command and its options.
        failure: Start of the error message; pip's last error line follows it.
        pip: Arguments with which Python runs pip.

    Raises:
        InstallError: pip failed.
    """
    command = [sys.executable, *pip, "--disable-pip-version-check", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or run.stderr.strip().splitlines() or ["no error message"])[-1]
        raise InstallError(f"{failure}: {reason}")


def downloading_pip(folder: Path) -> Sequence[str]:
    """Returns the arguments with which Python runs a pip that can download the source archive.

    If the installed pip is too new, an older one runs from its wheel, without being installed.

    Args:
        folder: Existing folder for the wheel.

    Raises:
        InstallError: The wheel cannot be downloaded, or has another sha256.
    """
    major, minor = re.findall(r"\d+", importlib.metadata.version("pip"))[:2]
    if (int(major), int(minor)) < STRICT_PIP:
        return _PIP
    requirements = folder / "pip.txt"
    requirements.write_text(f"pip=={OLDER_PIP} --hash=sha256:{OLDER_PIP_SHA256}\n", "utf-8")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    run_pip(
        ["download", *options, "--dest", str(folder), "--requirement", str(requirements)],
        f"cannot download pip {OLDER_PIP}, as newer ones refuse {SDIST} (check that a package "
        "index is reachable: `pip config list`)",
    )
    return (str(folder / f"pip-{OLDER_PIP}-py3-none-any.whl" / "pip"),)


def download(folder: Path) -> Path:
    """Downloads the source archive; pip checks its sha256 before any of its code can run.

    Args:
        folder: Existing folder for the archive.

    Returns:
        The path of the archive.

    Raises:
        InstallError: pip failed, or the archive is missing or has another sha256.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST}=={SDIST_VERSION} --hash=sha256:{SDIST_SHA256}\n", "utf-8")
    options = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes"]
    run_pip(
        ["download", *options, "--dest", str(folder), "--requirement", str(requirements)],
        f"cannot download {SDIST} {SDIST_VERSION} (check that a package index is reachable: "
        "`pip config list`)",
        downloading_pip(folder),
    )
    archive = folder / f"{SDIST}-{SDIST_VERSION}.tar.gz"
    check_sha256(archive)
    return archive


def check_sha256(archive: Path) -> None:
    """Raises InstallError if ``archive`` is not the file that the patch was made for."""
    if not archive.is_file():
        raise InstallError(f"pip downloaded {SDIST} {SDIST_VERSION}, but {archive} is missing")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    if sha256 != SDIST_SHA256:
        raise InstallError(f"{archive} has sha256 {sha256}, expected {SDIST_SHA256}")


def extract(archive: Path, folder: Path) -> Path:
    """Unpacks the source archive.

    Returns:
        The folder of the sources, which contains ``detectron2/``.

    Raises:
        InstallError: The archive is damaged, would write outside of ``folder``, or has no
            detectron2 in it.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise InstallError(f"cannot unpack {archive}: {error}") from error
    source = folder / f"{SDIST}-{SDIST_VERSION}"
    if not (source / "detectron2" / "__init__.py").is_file():
        raise InstallError(f"{archive} contains no detectron2 package")
    return source


def apply_patch(source: Path, patch: Path = PATCH) -> None:
    """Applies a patch to the unpacked sources.

    Args:
        source: Folder of the sources.
        patch: Unified diff; its paths are relative to ``source`` and have no prefix.

    Raises:
        InstallError: The patch does not apply to these sources.
    """
    patches = require("patch_ng", "train").fromfile(str(patch))
    if not patches or not patches.apply(root=str(source)):
        raise InstallError(
            f"{patch} does not apply to {SDIST} {SDIST_VERSION} in {source}; nothing was installed"
        )


def build_wheel(source: Path, folder: Path) -> Path:
    """Builds the wheel of the patched sources.

    Args:
        source: Folder of the sources.
        folder: Folder for the wheel.

    Returns:
        The path of the wheel.

    Raises:
        InstallError: pip failed.
    """
    # setup.py would compile the extension; setuptools runs it even if there is a pyproject.toml.
    (source / "setup.py").unlink(missing_ok=True)
    # The archive's files are readable by their owner alone, and pip keeps their modes.
    for path in (source, *source.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    run_pip(["wheel", *options, str(source)], "cannot build a wheel of detectron2")
    return next(folder.glob("detectron2-*.whl"))


def install_wheel(wheel: Path, target: Path | None) -> None:
    """Installs a wheel with pip in place of an older installation.

    Args:
        wheel: Path of the wheel.
        target: Folder to install into; None installs into the running environment.

    Raises:
        InstallError: pip failed.
    """
    options = ["--no-deps", "--no-index"]
    if target is not None:
        options += ["--upgrade", "--target", str(target)]
    where = target or "this environment"
    run_pip(["install", *options, str(wheel)], f"cannot install detectron2 into {where}")
    if target is not None:  # with --target, pip keeps the metadata of other versions
        for info in target.glob("detectron2-*.dist-info"):
            if info.name != f"detectron2-{VERSION}.dist-info":
                shutil.rmtree(info)


def install_from_index(target: Path | None = None) -> None:
    """Downloads, checks, patches, builds and installs detectron2.

    Args:
        target: Folder to install into; None installs into the running environment.

    Raises:
        InstallError: A step failed. An older installation is unchanged unless pip failed while
            replacing it.
    """
    check_build_requirements()
    try:
        if target is not None:
            target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fbnetv3-detectron2-") as name:
            work = Path(name)
            source = extract(download(work), work)
            apply_patch(source)
            check_imports(source / "detectron2")
            install_wheel(build_wheel(source, work), target)
    except OSError as error:
        reason = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        raise InstallError(
            f"cannot install into {target or 'this environment'}: {reason}; it takes a folder that "
            "you can write to, and space for temporary files"
        ) from error


def install_from_git() -> None:
    """Installs the pinned upstream commit with pip; raises InstallError if pip failed."""
    run_pip(
        ["install", "--no-build-isolation", f"{UPSTREAM}@{UPSTREAM_COMMIT}"],
        "cannot install upstream detectron2 (it needs git, github.com and a C++ compiler)",
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="fbnetv3-install-detectron2",
        description="Install detectron2 into the running environment, from the package index and "
        "without a\ncompiler. Leaves an existing detectron2 alone, unless another version of this "
        "installer\nmade it.",
        epilog=_EPILOG,
        parents=[version_option()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--from-git",
        action="store_true",
        help="compile the pinned upstream commit instead, with its C++ extension; does nothing if "
        "an existing detectron2 is left alone",
    )
    parser.add_argument(
        "--target",
        type=Path,
        metavar="DIR",
        help="install into this folder, such as a site-packages folder",
    )
    arguments = parser.parse_args(argv)
    if arguments.from_git and arguments.target:
        parser.error("--target cannot be used with --from-git")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Installs detectron2.

    An existing detectron2 is left alone, unless another version of this installer made it.

    Returns:
        The exit status, 0.

    Raises:
        InstallError: A step failed, or a detectron2 that stays as it is cannot be imported.
    """
    arguments = parse(argv)
    installed = find_installed(arguments.target)
    is_outdated = (
        installed is not None and installed.is_from_this_installer and installed.version != VERSION
    )
    if installed is not None and not is_outdated:
        if not installed.is_from_this_installer:
            check_installed(installed)
        version = f"{installed.version} " if installed.version else ""
        print(f"detectron2 {version}is installed in {installed.path}: left alone")
        return 0
    if arguments.from_git:
        install_from_git()
    else:
        install_from_index(arguments.target)
    print(f"installed detectron2 {UPSTREAM_COMMIT[:8]}")
    return 0


def cli() -> None:
    """Entry point of the console script."""
    sys.exit(run_main(main))


if __name__ == "__main__":
    cli()
