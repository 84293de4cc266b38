"""Forms of a network side by side: names, ratios, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fbnetv3.benchmark import formats
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.benchmark.formats import FormatSettings, compare_formats
from fbnetv3.cli import benchmark, run_main
from fbnetv3.errors import FBNetError

SMALL = FormatSettings(("eager", "onnxruntime"), resolution=32, batch_sizes=(1, 3), rounds=3)


def test_files_are_timed_next_to_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = dict.fromkeys(formats.RUNTIMES, "")
    monkeypatch.setattr(formats.FileRuntime, "problem", lambda self: problems[self.name])
    problems["openvino"] = "openvino not installed: pip install 'fbnetv3[openvino]'"
    path = tmp_path / "times.json"
    argv = ["--formats", "eager,deploy", "onnx", "onnxruntime-int8", "openvino", "fbnetv3_nano_a"]
    sizes = ["--resolution", "32", "--rounds", "2", "--batch-sizes", "1", "2"]
    assert benchmark.main([*argv, *sizes, "--json", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == f"openvino: fbnetv3_nano_a not timed: {problems['openvino']}"
    rows = json.loads(path.read_text())["rows"]
    forms = ["eager", "deploy", "onnxruntime", "onnxruntime-int8"]
    assert [(row["batch"], row["form"]) for row in rows] == [(n, f) for n in (1, 2) for f in forms]
    assert all(row["ms"] > 0 and len(row["rounds"]) == 2 for row in rows)
    assert rows[2]["runtime"].startswith("onnxruntime 1.")


def test_ratios_are_medians_over_rounds_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow round of the machine slows both forms, and leaves the ratio as it is."""
    times = {"eager": [0.2, 2.0, 0.4], "onnxruntime": [0.1, 1.0, 0.1]}
    monkeypatch.setattr(formats.measures, "alternate", lambda *_: times)
    result = compare_formats(["fbnetv3_nano_a"], SMALL)
    first, second = result.times[:2]
    assert (first.speedup, first.ms, first.spread) == (1.0, pytest.approx(400), (1.0, 1.0))
    assert (second.speedup, second.ms) == (pytest.approx(2.0), pytest.approx(100))
    assert second.spread == pytest.approx(tuple(np.quantile([2.0, 2.0, 4.0], (0.1, 0.9))))


def test_a_file_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    write = formats.RUNTIMES["onnxruntime"].format.write

    def wrong(job: object, path: Path) -> None:
        job.network.shift += 0.1  # type: ignore[attr-defined]
        write(job, path)  # type: ignore[arg-type]
        job.network.shift -= 0.1  # type: ignore[attr-defined]

    format = formats.RUNTIMES["onnxruntime"].format
    monkeypatch.setitem(
        formats.RUNTIMES,
        "onnxruntime",
        replace(formats.RUNTIMES["onnxruntime"], format=replace(format, write=wrong)),
    )
    monkeypatch.setattr(formats.measures, "alternate", lambda steps, *_: {n: [1.0] for n in steps})
    result = compare_formats(["fbnetv3_nano_a"], SMALL)
    assert [time.form for time in result.times] == ["eager", "eager"]
    assert "differ by" in result.notes[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["onnxruntme"], "did you mean onnxruntime"),
        (["eager", "fbnetv3_q"], "--formats fbnetv3_q: neither a form nor a network"),
    ],
)
def test_unknown_words_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(benchmark.main, ["--formats", *words]) == 2
    assert message in capsys.readouterr().err


def test_networks_may_stand_behind_the_forms() -> None:
    forms, networks = formats.split(["onnx-int8,eager", "timm", "timm/resnet18", "fbnetv3_nano_a"])
    assert forms == ["onnxruntime-int8", "eager", "timm"]
    assert networks == ["timm/resnet18", "fbnetv3_nano_a"]


def test_no_form_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats.FileRuntime, "problem", lambda self: "not installed")
    with pytest.raises(BenchmarkError, match="none of the forms"):
        compare_formats(["fbnetv3_nano_a"], FormatSettings(("onnxruntime",), resolution=32))
    with pytest.raises(FBNetError, match="unknown"):
        compare_formats(["fbnetv3_nano_a"], FormatSettings(("onnxruntim",)))
