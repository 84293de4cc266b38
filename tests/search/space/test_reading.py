"""Texts of tables, yaml files and command lines are read by the type of their variable."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from fbnetv3.search import Choice, FloatRange, IntRange, SearchError, SearchSpace
from fbnetv3.search.space.parameters import Parameter
from fbnetv3.search.storage.warm_start import read_warm_start

LR = FloatRange("v", 1e-6, 1e-1, log=True)
WIDE = FloatRange("v", 0, 1e20)
DEPTH = IntRange("v", 1, 100)
WORDS = ["adam", "on", "no", "3", "null", "2020-01-01", "a: b", "#x", "1_000", "[x", "@x", "",
         " x", "1:30", "~", "yes", "0x10", "{a}", "'q'", '"', "é", "a,b", "a\nb",
         "None"]  # fmt: skip


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        *((Choice("v", WORDS), word, word) for word in WORDS),
        (LR, "1e-05", 1e-05),
        (LR, "1E-5", 1e-05),
        (LR, " 0.001 ", 0.001),
        (LR, "+.05", 0.05),
        (WIDE, "1e+16", 1e16),
        (WIDE, "010", 10.0),
        (WIDE, "7", 7.0),
        (DEPTH, "010", 10),
        (DEPTH, "3.0", 3),
        (DEPTH, "1e1", 10),
        (Choice("v", (1e-05, 0.1)), "1e-05", 1e-05),
        (Choice("v", (1, 2)), "1.0", 1),
        (Choice("v", (1, 1.0)), "1.0", 1.0),
        (Choice("v", (1, 1.0)), "1", 1),
        (Choice("v", (1, True)), "1", 1),
        (Choice("v", (True, False)), "TRUE", True),
        (Choice("v", (True, False)), "false", False),
        (Choice("v", (None, 0.5)), "", None),
        (Choice("v", (None, 0.5)), "None", None),
        (Choice("v", (None, 0.5)), "null", None),
        (Choice("v", (None, "")), "", ""),
        (Choice("v", (2**60, 2**60 + 1)), str(2**60 + 1), 2**60 + 1),
    ],
)
def test_a_text_is_read_by_the_type_of_its_variable(
    parameter: Parameter, text: str, value: Any
) -> None:
    read = parameter.read(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (DEPTH, "1:30"),
        (DEPTH, "1_0"),
        (DEPTH, "0x10"),
        (DEPTH, "1.5"),
        (DEPTH, "on"),
        (DEPTH, "9" * 6000),
        (DEPTH, "101"),
        (DEPTH, "true"),
        (LR, "1e-3x"),
        (LR, "nan"),
        (LR, "inf"),
        (LR, "1e999"),
        (LR, "0.1_0"),
        (LR, "1,5"),
        (LR, ""),
        (LR, "2020-01-01"),
        (Choice("v", (True, False)), "on"),
        (Choice("v", (True, False)), "1"),
        (Choice("v", (3, "3")), "3"),
        (Choice("v", (True, "True")), "True"),
        (Choice("v", ("a", "b")), "A"),
    ],
)
def test_other_texts_are_refused_on_one_line(parameter: Parameter, text: str) -> None:
    with pytest.raises(SearchError, match="v=") as error:
        parameter.read(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_what_python_writes_to_a_csv_is_read_back(tmp_path: Path) -> None:
    variables = [
        LR,
        FloatRange("w", -1e10, 1e20),
        IntRange("d", -5, 2**40),
        Choice("c", WORDS),
        Choice("b", (True, False)),
        Choice("n", (None, 0.1, 3)),
    ]
    space, random_numbers = SearchSpace(variables), random.Random(0)
    configs = [
        {p.name: p.value(random_numbers.randrange(p.size)) for p in variables} for _ in range(200)
    ]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*space.names, "score"])
        writer.writerows([*config.values(), -0.5] for config in configs)
    trials = read_warm_start(space, tmp_path / "a.csv").trials
    ids = dict.fromkeys(space.ids(space.levels(configs)))
    assert [t.id for t in trials] == list(ids)
    assert json.dumps([t.config for t in trials])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x,score\n0.5,0.1\n", None),
        ("\ufeffx,score\n0.5,0.1\n", None),
        (" x , score \n0.5,1e-05\n\n", None),
        ("x,score\n0.5,\n", "line 2: the score '' is not a number"),
        ("x,score\n0.5,nan\n", "line 2: the score 'nan'"),
        ("x,score\n0.5\n", "line 2: the score ''"),
        ("x,score\n0.5,0.1,7\n", "line 2 has more cells"),
        ("x,score\non,0.1\n", "line 2: x='on'"),
        ("x,score\n,0.1\n", "lacks the variable 'x'"),
        ("x,x,score\n0.5,0.5,0.1\n", "two columns 'x'"),
        ("lr,score\n0.5,0.1\n", "no variable 'lr'"),
        ("x\n0.5\n", "no column 'score'"),
        ("", "no column 'score'"),
    ],
)
def test_tables(content: str, text: str | None, tmp_path: Path) -> None:
    space = SearchSpace([FloatRange("x", 0.0, 1.0)])
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    if text is None:
        assert math.isclose(read_warm_start(space, tmp_path / "a.csv").trials[0].config["x"], 0.5)
        return
    with pytest.raises(SearchError, match="warm start") as error:
        read_warm_start(space, tmp_path / "a.csv")
    assert text in str(error.value)
    assert "\n" not in str(error.value)
