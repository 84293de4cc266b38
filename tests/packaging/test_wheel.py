"""The wheel alone, in a clean environment, is the whole product.

torch is not installed a second time (5.5 GB): the clean environment reads the running one's
packages through a ``.pth`` file, which does not bring the editable fbnetv3 along. The light
environment has links to those packages only that ``pip install fbnetv3`` installs.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = (".py", ".yaml", ".json", ".typed", ".html", ".css", ".js", ".patch")
WEIGHTS = {"fbnetv3_nano_a.cifar10.safetensors", "retinanet_fbnetv3_a0.bccd.safetensors"}
LARGEST = 7e6  # bytes
LEFT_OUT = shutil.ignore_patterns("__pycache__", "output", "*.egg-info", ".*_cache")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, so that no build folder of the tree itself gets in."""
    copy = tmp_path_factory.mktemp("source") / "fbnetv3"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for folder in ("fbnetv3", "model_zoo", "projects", "tests", "tools", ".ci"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=LEFT_OUT)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, which is built from the tree."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    (built,) = out.glob("*.whl")
    return built


def _install(wheel: Path, root: Path) -> Path:
    """Makes an environment with the wheel alone; returns its folder of packages."""
    venv.create(root)
    python = root / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    run = subprocess.run(install, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", code], text=True).strip())


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment that the wheel is installed in."""
    root = tmp_path_factory.mktemp("clean") / "venv"
    site = _install(wheel, root)
    (site / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "bin"


def _needs(distribution: importlib.metadata.Distribution) -> set[str]:
    """Returns the names of what a distribution requires without any of its extras."""
    needs = map(Requirement, distribution.requires or [])
    return {n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})}


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment like that of ``pip install fbnetv3``."""
    root = tmp_path_factory.mktemp("light") / "venv"
    site = _install(wheel, root)
    (own,) = importlib.metadata.distributions(name="fbnetv3", path=[str(site)])
    pending, seen = _needs(own), set[str]()
    while pending:
        name = pending.pop()
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        pending |= _needs(distribution) - seen
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return root / "bin"


def _run(command: list[str | Path], cwd: Path, status: int = 0) -> str:
    """Runs a command; returns its standard output, or its standard error if it is to fail."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FBNETV3"))}
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert run.returncode == status, run.stdout[-2000:] + run.stderr[-2000:]
    return run.stderr if status else run.stdout


def test_the_index_would_take_them(wheel: Path) -> None:
    files = sorted(map(str, wheel.parent.iterdir()))
    assert len(files) == 2  # the source archive and the wheel
    twine = [sys.executable, "-m", "twine", "check", "--strict", *files]
    run = subprocess.run(twine, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_file_is_inside(source: Path, wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        prefix + path.relative_to(source / folder).as_posix()
        for folder, prefix in (("fbnetv3", "fbnetv3/"), ("model_zoo", "fbnetv3/model_zoo/"))
        for path in (source / folder).rglob("*")
        if path.suffix in SHIPPED
    }
    assert expected - packed == set()
    assert {n for n in packed if n.startswith(("tests/", "tools/", "projects/"))} == set()


def test_small_weights_are_inside(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".safetensors")}
    assert names == {f"fbnetv3/model_zoo/weights/{name}" for name in WEIGHTS}
    assert wheel.stat().st_size < LARGEST


def test_weights_outside_are_named(clean: Path, tmp_path: Path) -> None:
    code = (
        "from fbnetv3 import zoo\nfrom fbnetv3.errors import FBNetError\n"
        "print(zoo.get('fbnetv3_nano_a.cifar10', pretrained=True).__class__.__name__)\n"
        "try:\n    zoo.get('fbnetv3_a0.cifar10', pretrained=True)\n"
        "except FBNetError as error:\n    print(error)"
    )
    name, message = _run([clean / "python", "-c", code], tmp_path).splitlines()
    assert name == "FBNetClassifier"
    assert "copy model_zoo/weights/fbnetv3_a0.cifar10.safetensors of the repository" in message


def test_the_package_is_the_installed_one(clean: Path, tmp_path: Path) -> None:
    out = _run([clean / "python", "-c", "import fbnetv3; print(fbnetv3.__file__)"], tmp_path)
    assert Path(out.strip()).is_relative_to(clean.parent)


@pytest.mark.parametrize("command", ["train", "search", "predict", "zoo", "benchmark"])
def test_a_console_script_helps(clean: Path, tmp_path: Path, command: str) -> None:
    out = _run([clean / f"fbnetv3-{command}", "--help"], tmp_path)
    assert out.lower().startswith("usage: fbnetv3-" + command)


def test_the_zoo_lists_its_models(clean: Path, tmp_path: Path) -> None:
    assert "fbnetv3_g" in _run([clean / "fbnetv3-zoo", "list"], tmp_path)


def test_detectron2s_installer_is_there(clean: Path, tmp_path: Path) -> None:
    assert "left alone" in _run([clean / "fbnetv3-install-detectron2"], tmp_path)


def test_a_model_is_built_without_detectron2(clean: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['detectron2'] = None; import fbnetv3; "
        "print(type(fbnetv3.build_model('fbnetv3_a0')).__name__)"
    )
    assert _run([clean / "python", "-c", code], tmp_path).strip() == "FBNetClassifier"


def test_a_config_is_found_by_the_name_that_readmes_use(clean: Path, tmp_path: Path) -> None:
    code = (
        "from fbnetv3.resources import find_config; "
        "print(find_config('model_zoo/fbnetv3_g.yaml').resolve())"
    )
    out = _run([clean / "python", "-c", code], tmp_path)
    assert Path(out.strip()).is_relative_to(clean.parent.resolve())


def test_a_light_installation_has_few_packages(light: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    names = set(_run([light / "python", "-c", code], tmp_path).lower().split())
    assert {"fbnetv3", "torch", "torchvision", "numpy", "safetensors"} <= names
    assert names & {"scipy", "optuna", "tensorboard", "scikit-learn", "fvcore", "yacs"} == set()


def test_a_light_installation_builds_loads_and_predicts(light: Path, tmp_path: Path) -> None:
    code = (
        "import fbnetv3\nfrom fbnetv3.errors import FBNetError\n"
        "model = fbnetv3.build_model('fbnetv3_nano_a.cifar10', pretrained=True)\n"
        "print(type(model).__name__)\n"
        "try:\n    from fbnetv3.search import JointNAS\n"
        "except FBNetError as error:\n    print(error)"
    )
    name, message = _run([light / "python", "-c", code], tmp_path).splitlines()
    assert name == "FBNetClassifier"
    assert message.endswith("pip install 'fbnetv3[search]'")
    Image.new("RGB", (40, 40), (90, 120, 200)).save(tmp_path / "sky.jpg")
    predict = [light / "fbnetv3-predict", "sky.jpg", "--model", "fbnetv3_nano_a.cifar10"]
    assert len(_run([*predict, "--top-k", "2"], tmp_path).splitlines()) == 3


def test_every_command_helps_in_a_light_installation(light: Path, tmp_path: Path) -> None:
    commands = sorted(path.name for path in light.glob("fbnetv3-*"))
    assert len(commands) == 9
    for command in commands:
        assert _run([light / command, "--help"], tmp_path).lower().startswith(f"usage: {command}")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["fbnetv3-install-detectron2"], "pip install 'fbnetv3[train]'"),
        (["fbnetv3-train", "--config-file", "x.yaml"], "run fbnetv3-install-detectron2"),
        (["fbnetv3-search", "--config-file", "x.yaml"], "run fbnetv3-install-detectron2"),
        (
            ["fbnetv3-evaluate", "--model", "fbnetv3_nano_a.cifar10", "--data", "x"],
            "pip install 'fbnetv3[report]'",
        ),
    ],
)
def test_a_light_installation_says_what_a_command_needs(
    light: Path, tmp_path: Path, command: list[str], says: str
) -> None:
    (line,) = _run([light / command[0], *command[1:]], tmp_path, status=2).splitlines()
    assert line.startswith("error: ")
    assert says in line
