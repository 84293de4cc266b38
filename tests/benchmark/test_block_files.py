"""Blocks as files: the folder, the csv that comes back, and the table made of it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from fbnetv3 import imagenet
from fbnetv3.arch import Arch
from fbnetv3.arch.errors import ArchError
from fbnetv3.arch.latency import LatencyTable
from fbnetv3.arch.latency_shapes import arch_shapes
from fbnetv3.benchmark import block_times, latency
from fbnetv3.benchmark.block_files import Part, read_manifest, read_times, write_blocks
from fbnetv3.benchmark.block_times import read_blocks, table_from_times
from fbnetv3.benchmark.errors import BenchmarkError
from fbnetv3.export.formats import FORMATS
from fbnetv3.io import WriteError
from fbnetv3.search.fbnet.space import FBNetSpace

Written = tuple[Path, list[Part]]


@pytest.fixture(scope="module")
def archs() -> list[Arch]:
    space = FBNetSpace.from_yaml("nano")
    return [a.replace(resolution=16) for a in latency.sample_archs(space, 9, 10, seed=1)]


@pytest.fixture(scope="module")
def parts_of(
    archs: list[Arch], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Part]]:
    folder = tmp_path_factory.mktemp("made") / "blocks"
    about = {"space": "nano", "config": "nano.yaml", "classes": 10}
    return folder, write_blocks(folder, archs[:2], archs[2:4], [FORMATS["onnx"]], about)


def _fill(folder: Path, text: Callable[[str], str], path: Path) -> Path:
    with open(folder / "blocks.csv", encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    path.write_text("name,ms\n" + "".join(f"{name},{text(name)}\n" for name in names))
    return path


def test_files_are_the_blocks_of_the_networks(archs: list[Arch], parts_of: Written) -> None:
    """The blocks one after another compute what the whole network computes."""
    folder, parts = parts_of
    first = next(part for part in parts if part.blocks)

    def run(part: Part, x: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(str(folder / f"{part.name}.onnx"))
        return np.asarray(session.run(None, {"images": x})[0])

    images = torch.rand(first.input_size).numpy()
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (imagenet.MEAN, imagenet.STD))
    x = (images - mean) / std
    for index in first.blocks:
        assert x.shape == parts[index].input_size
        x = run(parts[index], x)
    whole = run(first, images)
    assert np.abs(x - whole).max() <= 1e-4 * np.abs(whole).mean()
    shapes = [parts[i].shape for i in first.blocks]
    assert shapes == arch_shapes(archs[0])[1:]


def test_the_folder_can_be_read_back(archs: list[Arch], parts_of: Written, tmp_path: Path) -> None:
    folder, parts = parts_of
    again, archs_of, about = read_manifest(folder / "blocks.json")
    assert again == parts
    assert list(archs_of.values()) == archs[:4]
    assert about["space"] == "nano"
    path = _fill(folder, lambda name: "2.5", tmp_path / "blocks.csv")
    assert set(read_times(path, parts).values()) == {2.5}
    assert len(list(folder.glob("*.onnx"))) == len(parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "row 1 is"),
        (lambda rows: [], "row 1 is ''; it must be"),
        (lambda rows: rows[:-1], "no row for check_004 (1 of"),
        (lambda rows: [*rows, "other,1"], "'other' is not a file of this folder"),
        (lambda rows: [*rows, rows[-1]], "check_004 is there twice"),
        (lambda rows: [rows[0], rows[1].split(",")[0] + ",", *rows[2:]], "row 2: the ms of 0001"),
        (lambda rows: [*rows[:-1], "check_004,0"], "> 0, not '0'"),
        (lambda rows: [*rows[:-1], "check_004,nan"], "> 0, not 'nan'"),
        (lambda rows: [*rows[:-1], "check_004,1e999"], "> 0, not '1e999'"),
        (lambda rows: [*rows[:-1], "check_004,2 ms"], "> 0, not '2 ms'"),
        (lambda rows: [*rows[:-1], "check_004,1,2"], "has 3 cells"),
        (lambda rows: [*rows, '"open'], "cannot read"),
    ],
)
def test_an_odd_csv_is_refused_with_its_row(
    change: Callable[[list[str]], list[str]],
    message: str,
    parts_of: Written,
    tmp_path: Path,
) -> None:
    folder, parts = parts_of
    path = _fill(folder, lambda name: "1.0", tmp_path / "blocks.csv")
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(BenchmarkError) as error:
        read_times(path, parts)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_csv_away_from_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blocks.csv").write_text("name,ms\n")
    with pytest.raises(BenchmarkError, match="in the folder that --export-blocks DIR wrote"):
        read_blocks(tmp_path / "blocks.csv", "phone")
    part = '{"name": "a", "elements": 1, "input": [1], "blocks": [], "check": true, "arch": "x"}'
    for broken in ('{"name": 3}', part):
        (tmp_path / "blocks.json").write_text(f'{{"format": 1, "parts": [{broken}]}}')
        with pytest.raises(BenchmarkError, match="not written by --export-blocks"):
            read_blocks(tmp_path / "blocks.csv", "phone")
    with pytest.raises(ArchError, match="convert it to one"):
        LatencyTable.load(tmp_path / "blocks.csv")


def test_a_folder_that_cannot_be_made_is_one_line(archs: list[Arch], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write_blocks(tmp_path / "file" / "blocks", archs[:1], archs[1:2], [FORMATS["pt2"]], {})


def test_costs_of_running_alone_are_taken_out(archs: list[Arch]) -> None:
    """Blocks alone are measured with a call and a conversion, which networks pay only once."""
    shapes = list(dict.fromkeys(s for arch in archs for s in arch_shapes(arch)[1:]))
    inside = {s: 0.1 + 0.01 * int(s.mid) for s in shapes}
    elements = {s: int(s.size) ** 2 * int(s.c_in) for s in shapes}
    parts = [Part(f"b{i}", (1,), elements[s], s) for i, s in enumerate(shapes)]
    times = {f"b{i}": inside[s] + 0.03 + elements[s] * 2e-6 for i, s in enumerate(shapes)}
    archs_of = {f"n{i}": arch for i, arch in enumerate(archs)}
    for name, arch in archs_of.items():
        own, is_check = arch_shapes(arch)[1:], name in ("n7", "n8")
        indices = () if is_check else tuple(shapes.index(s) for s in own)
        parts.append(Part(name, (1,), 1, None, indices, is_check))
        times[name] = 0.5 + sum(inside[s] for s in own)
    table = table_from_times(parts, archs_of, times, {"runtime": "phone"})
    fit = table.about["fit"]
    assert fit["scale"] == pytest.approx(1.0, rel=1e-3)
    assert fit["call_ms"] == pytest.approx(0.03, rel=0.05)
    assert table.about["check"]["mean_absolute_error"] < 0.01
    assert table.runtime == "phone"


def test_slow_groups_are_scaled_by_the_references(
    parts_of: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is slower in some groups, equal files get equal times."""
    folder, parts = parts_of
    made: list[int] = []

    class Timed:
        def __init__(self, part: Part, *_: object) -> None:
            self.name, self.seconds, self.ms = part.name, [], 0.0
            made.append(1)

        def time(self, clock: object) -> None:
            self.ms = float(1 + len(made) // 20)  # slower with each file that was loaded

    monkeypatch.setattr(block_times, "_Timed", Timed)
    monkeypatch.setattr(block_times, "_GROUP_BYTES", 5e4)
    runtime = block_times.RUNTIMES["onnxruntime"]
    times = block_times._time_parts(folder, parts, runtime, 2, lambda: 0.0, None)
    assert set(times) == {part.name for part in parts}
    assert len(set(times.values())) == 1
