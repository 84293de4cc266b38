"""docs/paper.md: its commands are valid, fit together, and run to the table of the networks."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from fbnetv3.cli import search, train, zoo
from fbnetv3.search import Constraint

pytest.importorskip("detectron2")

from fbnetv3.config import get_cfg
from fbnetv3.resources import find_config
from fbnetv3.search.fbnet.config import SearchSetup, settings_from_config
from fbnetv3.search.fbnet.config_file import read_search_config
from fbnetv3.search.fbnet.preflight import check_trainings
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.winner_names import winner_name
from projects.paper import rehearsal
from tests.forked import ForkedCommand

ROOT = Path(__file__).parents[2]
COMMANDS = rehearsal.commands_of(rehearsal.PAGE.read_text(encoding="utf-8"))
TARGETS = dict(zip("abcdefg", (343e6, 450e6, 550e6, 650e6, 750e6, 1.18e9, 2.0e9), strict=True))


def test_the_page_has_every_step() -> None:
    tools = [command[1] for command in COMMANDS]
    assert tools == [
        "tools/train_net.py",
        *["tools/jointnas_search.py"] * 2,
        *["tools/zoo.py"] * 3,
        *["tools/train_net.py"] * 7,
        "tools/zoo.py",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[1:4]))
def test_the_commands_of_the_page_are_valid(command: list[str]) -> None:
    tool, arguments = command[1], command[2:]
    if tool == "tools/zoo.py":
        opts = getattr(zoo.parse(arguments), "opts", [])
    elif tool == "tools/train_net.py":
        opts = train.make_parser().parse_intermixed_args(arguments).opts
    else:
        args = search.make_parser().parse_intermixed_args(arguments)
        if args.config_file:
            assert read_search_config(args.config_file, args.opts).OUTPUT_DIR in " ".join(
                COMMANDS[2]
            )
        return
    get_cfg().merge_from_list(opts)


def test_every_file_of_a_command_is_left_by_an_earlier_one() -> None:
    made = {f"output/paper/{name}" for name in "bcde"}  # OUTPUT_DIR of trainings
    run = "output/search/fbnetv3_paper"
    for command in COMMANDS:
        args = command[2:]
        for text in (t for t in args if t.startswith(("output/", "model_zoo/"))):
            if text.startswith("model_zoo/"):
                assert find_config(text).is_file()
            elif text != run and args[args.index(text) - 1] not in ("--output", "OUTPUT_DIR"):
                assert text in made, text
        if "--evolve" in args:
            budgets = [float(t) for t in args[args.index("--macs") + 1 :]]
            assert budgets == [TARGETS[name] for name in "bcde"]
            names = (winner_name([Constraint("macs", upper=b)]) for b in budgets)
            made |= {f"{run}/{name}.yaml" for name in names}
        if "--output" in args:
            path = args[args.index("--output") + 1]
            made |= {path, path.removesuffix(".yaml")}


def test_the_rehearsal_divides_every_number_of_multiply_adds(tmp_path: Path) -> None:
    for command in COMMANDS:
        shown = rehearsal.rehearsed(command, tmp_path / "space.yaml")
        assert shown[0] == sys.executable
        assert len(shown) >= len(command)
        for printed, now in zip(command[1:], shown[1:], strict=False):
            number = re.fullmatch(r"\d+(\.\d+)?e\d+", printed)
            name = re.search(r"best_macs_(\d+)M", printed)
            if number:
                assert float(now) == pytest.approx(float(printed) / rehearsal.FEWER)
            elif name:
                upper = float(name[1]) * 1e6 / rehearsal.FEWER
                assert winner_name([Constraint("macs", upper=upper)]) in now
            elif printed != "8":
                assert now == printed


def test_the_rehearsed_search_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsal.make_imagenet(tmp_path / "imagenet")
    rehearsal.make_space(tmp_path / "space.yaml")
    monkeypatch.setenv("FBNETV3_DATA", str(tmp_path))
    args = rehearsal.rehearsed(COMMANDS[1], tmp_path / "space.yaml")
    parsed = search.make_parser().parse_intermixed_args(args[2:])
    cfg = read_search_config(parsed.config_file, parsed.opts)
    assert settings_from_config(cfg).early_stop_over == "all"
    setup = SearchSetup(cfg)
    check_trainings(setup)
    paper = FBNetSpace.from_yaml("fbnetv3_paper").space
    assert setup.space.space.names == paper.names
    assert setup.space.space.sizes.tolist() == paper.sizes.tolist()


ROW = r"│ +([a-g]) +│ +([\d.]+)M +│ +([\d.]+)M +│ +(\d+) +│ +([\d.]+) +│ +([\d.]+) +│"
"""A row of the table: name, multiply-adds, parameters, resolution, top-1 with EMA and without."""


def _forked(
    command: Sequence[str], folder: Path, environment: dict[str, str]
) -> tuple[int, str, str]:
    """Runs a command as ``rehearsal.execute`` does, without the imports of a new interpreter."""
    with tempfile.TemporaryDirectory() as files:
        running = ForkedCommand(list(command), folder, environment, Path(files))
        status = running.wait(500)
        return (status, *running.communicate())


@pytest.mark.slow
def test_the_page_runs_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "execute", _forked)
    monkeypatch.setattr(rehearsal, "AT_ONCE", 1)  # multiprocessing may not poll in two threads
    rehearsal.main([str(tmp_path / "run")])
    rows = re.findall(ROW, capsys.readouterr().out)
    assert [name for name, *_ in rows] == list("abcdefg")
    macs = {name: float(value) * rehearsal.FEWER for name, value, *_ in rows}  # in millions
    for name, target in TARGETS.items():
        if name in "bcde":
            assert 400 <= macs[name] <= target / 1e6 + rehearsal.FEWER * 0.05  # rounded
        else:
            assert macs[name] == pytest.approx(target / 1e6, rel=0.04)
    assert max(float(top1_ema) for *_, top1_ema, _ in rows) > 100 / rehearsal.CLASSES + 20


def test_a_failed_command_ends_the_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands run in the folder, as processes, with the made-up data."""
    code = "import os, sys; print(os.environ['FBNETV3_DATA']); sys.exit(os.path.exists('bad'))"
    page = tmp_path / "page.md"
    page.write_text(f'```sh\npython -c "{code}"\n```\n', encoding="utf-8")
    monkeypatch.setattr(rehearsal, "PAGE", page)
    assert rehearsal.rehearse(tmp_path) == f"{tmp_path / 'data'}\n"
    assert "python -c " in capsys.readouterr().out
    (tmp_path / "bad").touch()
    with pytest.raises(RuntimeError, match=r"(?s)^python -c .* failed:\n.*data"):
        rehearsal._run([sys.executable, "-c", code], tmp_path)


def test_the_rehearsal_starts_in_an_empty_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "projects.paper.rehearsal", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert f"{tmp_path} is not empty" in ran.stderr
