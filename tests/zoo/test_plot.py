"""``fbnetv3-zoo plot``: the figures of the zoo, of peers and of a csv, and the picture of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fbnetv3.cli import run_main
from fbnetv3.cli.zoo import main
from fbnetv3.weights.errors import RecordError
from fbnetv3.zoo.plot import draw_points
from fbnetv3.zoo.points import Point, csv_points, peers, with_latencies, zoo_points


def test_the_points_of_the_zoo_are_its_records() -> None:
    by_name = {point.name: point for point in zoo_points()}
    assert by_name["fbnetv3_g.fb_in1k"] == Point(
        "fbnetv3_g.fb_in1k", "zoo, quoted", 2129656384, pytest.approx(82.79, abs=0.01)
    )
    (measured,) = {point.group for point in zoo_points("cifar10_test")}
    assert measured == "zoo, measured"
    assert zoo_points("no_data") == []


def test_the_peers_are_those_of_the_paper() -> None:
    by_name = {point.name: (point.macs, point.top1) for point in peers()}
    assert by_name["EfficientNetB0"] == (390e6, 77.3)
    assert by_name["ResNeSt-101"] == (10.2e9, 82.3)
    assert len(by_name) == 13


def test_a_csv_has_latencies_or_not(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("name,macs,top1,latency_ms\na,1e6,50,\nb,2e6,60,1.5\n")
    assert csv_points(path) == [Point("a", "mine", 1e6, 50.0), Point("b", "mine", 2e6, 60.0, 1.5)]


@pytest.mark.parametrize(
    "text",
    [
        "name,top1\na,1\n",
        "name,macs,top1\na,many,1\n",
        "name,macs,top1\na,1,nan\n",
        "macs,top1,name\n1,2\n",
    ],
)
def test_a_wrong_csv_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"mine\.csv.*columns name, macs and top1"):
        csv_points(path)


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none\.csv.*No such file"):
        csv_points(tmp_path / "none.csv")


def test_latencies_are_those_of_deployed_networks(tmp_path: Path) -> None:
    row = {"model": "fbnetv3_a", "measure": "latency", "variant": "deploy", "batch": 1, "value": 9}
    rows = [row, {**row, "variant": "eager", "value": 20}, {**row, "batch": 8, "value": 30}]
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"rows": rows}))
    points = [Point("fbnetv3_a.fb_in1k", "zoo, quoted", 1.0, 1.0), Point("b", "runs", 1.0, 1.0, 3)]
    assert [p.latency_ms for p in with_latencies(points, path)] == [9.0, 3]
    path.write_text("[]")
    with pytest.raises(RecordError, match="fbnetv3-benchmark --json"):
        with_latencies(points, path)


def test_the_picture_has_a_panel_for_latencies(tmp_path: Path) -> None:
    points = [Point(f"n{i}$", "runs", 10.0**i, 50.0 + i) for i in range(6, 9)]
    draw_points(points, tmp_path / "a.png", "mine")
    timed = [*points, Point("t", "other", 1e7, 55.0, 2.0)]
    draw_points(timed, tmp_path / "b.png", "mine")
    assert [Image.open(tmp_path / f"{n}.png").size for n in "ab"] == [(1350, 975), (2400, 975)]


def test_the_command_writes_every_format(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.csv").write_text("name,macs,top1\nours,3e8,79\n")
    command = ["plot", "--csv", str(tmp_path / "mine.csv"), "--output"]
    assert main([*command, str(tmp_path / "zoo.svg")]) == 0
    text = (tmp_path / "zoo.svg").read_text()
    for label in ("multiply-adds (millions)", "top-1 accuracy on imagenet_val (%)", "ours"):
        assert label in text
    assert run_main(main, [*command, str(tmp_path / "zoo.gif")]) == 2
    assert "allowed: a file that ends in .png, .svg, .pdf" in capsys.readouterr().err
    assert run_main(main, ["plot", "--data", "none", "--output", str(tmp_path / "zoo.png")]) == 2
