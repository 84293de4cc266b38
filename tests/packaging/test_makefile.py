"""Documented commands exist, checks of the machine name what is missing, CI stops at a failure."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.check_machine import problem

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("README.md", "CONTRIBUTING.md", "docs/training.md", "docs/detection.md", "docs/search.md")
DOCUMENTS = [name for name in NAMES if (ROOT / name).is_file()]


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", text, re.MULTILINE)
    return {name for rule in rules for name in rule.split()}


def test_documents_exist() -> None:
    assert list(NAMES) == DOCUMENTS


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_readme_links_every_document(document: str) -> None:
    assert f"docs/{document}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "projects").glob("**/*.md")],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    generated = re.compile(r"reference/|citation\.md")  # pages of the site alone
    kept = [link for link in links if not (path.name == "index.md" and generated.match(link))]
    assert [link for link in kept if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_make_commands_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(
        re.findall(r"(?:^|`| )make ([a-z][a-z-]+)\b(?=[`\s]*(?:#|$|`))", text, re.MULTILINE)
    )
    assert named - targets() == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documented_tools_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"\btools/\w+\.py\b", text))
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_ci_steps_exist() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = {name for line in re.findall(r"^run (.+)", text, re.MULTILINE) for name in line.split()}
    assert {"dev", "lint", "test-all", "test-oldest"} <= steps <= targets()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_what_to_do_without_python(tmp_path: Path) -> None:
    run = subprocess.run(
        ["make", f"VENV={tmp_path}/venv", "PYTHON=python-that-is-not-here", "install"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "PYTHON=python3.11 make install" in run.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("version", "has_venv", "free", "says"),
    [
        ((3, 9), True, 99.0, r"Python 3\.9 is too old.*PYTHON=python3\.11 make demo"),
        ((3, 11), False, 99.0, "apt install python3-venv"),
        ((3, 11), True, 3.0, r"3\.0 GB are free here, torch needs 8\.0"),
    ],
)
def test_what_a_machine_lacks(version: tuple, has_venv: bool, free: float, says: str) -> None:
    assert re.search(says, problem(version, has_venv, free, 8.0))


def test_a_machine_that_lacks_nothing() -> None:
    assert problem((3, 10), True, 8.0, 8.0) == ""


def test_the_check_runs_on_old_versions_of_python() -> None:
    tree = ast.parse((ROOT / "tools" / "check_machine.py").read_text(), feature_version=(3, 6))
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    built_in = ("dict", "list", "set", "tuple")  # not subscriptable before 3.9
    assert [v.id for v in values if isinstance(v, ast.Name) and v.id in built_in] == []


def test_a_full_disk_stops_before_anything_is_made(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_machine.py", tmp_path, "1e9"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert len(run.stderr.splitlines()) == 1


def _fake_ci(folder: Path, makefile: str) -> subprocess.CompletedProcess[str]:
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "Makefile").write_text(makefile)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    environment["UV"] = ""  # nothing is installed
    return subprocess.run(
        [folder / ".ci" / "run"], cwd="/", env=environment, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("failing", ["dev", "lint", "oldest", "test-all", "test-oldest"])
def test_ci_stops_at_the_first_failure_and_sums_up(tmp_path: Path, failing: str) -> None:
    rest = " ".join({"dev", "lint", "oldest", "test-all", "test-oldest"} - {failing})
    run = _fake_ci(tmp_path, f"{rest}:\n\techo $@ runs\n{failing}:\n\tfalse\n")
    assert run.returncode == 1
    summary = run.stdout.split("== Summary")[1]
    assert re.search(rf"^{failing} +\d+ s +FAILED \(2\)", summary, re.MULTILINE)
    assert len(re.findall(r"\d+ s +passed", summary)) == run.stdout.count(" runs\n") / 2
    # what runs beside a step ends, and what comes after it does not begin
    assert ("test-oldest runs" in run.stdout) == (failing == "test-all")
    assert ("lint runs" in run.stdout) == (failing in ("oldest", "test-all", "test-oldest"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_ci_passes_when_every_step_does(tmp_path: Path) -> None:
    run = _fake_ci(tmp_path, "dev lint oldest test-all test-oldest:\n\ttrue\n")
    assert run.returncode == 0
    assert len(re.findall(r"\d+ s +passed", run.stdout.split("== Summary")[1])) == 5


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_ignores_environments_and_links_to_them(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".venv").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".venv-oldest").mkdir()
    (tmp_path / ".venv-oldest" / "pyvenv.cfg").write_text("")
    status = ["git", "-C", tmp_path, "status", "--porcelain"]
    assert subprocess.check_output(status, text=True).split() == ["??", ".gitignore"]
