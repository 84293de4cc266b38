"""The report of a search for a Pareto front."""

from __future__ import annotations

import re
from pathlib import Path

from fbnetv3.search import JointNAS
from fbnetv3.search.report import About, write_report
from fbnetv3.search.report.front_figures import front_rows, fronts, hypervolume_by_batch
from fbnetv3.search.result import SearchResult
from tests.search import problem
from tests.search.test_fronts import FRONT, several


def _result(objectives: tuple[str, ...] = FRONT) -> SearchResult:
    search: JointNAS = problem.search(
        objectives=objectives, iterations=1, finalists=0, early_stop_threshold=None
    )
    if "score" in objectives:
        return search.run(lambda trial: problem.quality(trial.config))
    return search.run(several)


def test_the_page_has_front_and_hypervolume(tmp_path: Path) -> None:
    result, page = _result(), tmp_path / "report.html"
    write_report(page, problem.space(), result, About(score="top-1 (%)"))
    text = page.read_text(encoding="utf-8")
    count = len(result.pareto())
    assert f"{count} of 8 trials are on the Pareto front (rings)" in text
    table = text.split("<h2>Pareto front</h2>")[1].split("</table>")[0]
    assert "top-1 (%) (maximize)</th>" in table
    assert "MACs (minimize)</th>" in table
    assert table.count("<code>") == count
    assert "Hypervolume by batch" in text


def test_pages_of_one_objective_have_neither(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = problem.search(iterations=1, finalists=0).run(problem.evaluate)
    write_report(page, problem.space(), result)
    text = page.read_text(encoding="utf-8")
    assert "<h2>Pareto front</h2>" not in text
    assert "Hypervolume" not in text
    assert front_rows(result) == []


def test_points_of_the_front_are_rings_joined_by_a_line_in_two_dimensions() -> None:
    result = _result()
    (figure,) = fronts(result, "score")
    assert figure.svg.count('circle class="front"') == len(result.pareto())
    line = re.search(r'class="line front" d="([^"]*)"', figure.svg)
    assert line is not None
    heights = [float(v) for v in re.findall(r"V([\d.]+)", line[1])]
    assert heights == sorted(heights, reverse=True)  # better scores further up


def test_the_hypervolume_after_a_warm_start() -> None:
    result = _result()
    for trial in result.trials[:4]:
        trial.batch = -1
    svg = hypervolume_by_batch(result, "score").svg
    assert "after the warm start: " in svg
    assert "after batch 1: " in svg
    assert "batch 0" not in svg


def test_the_page_calls_trials_scores_by_the_name_of_the_first_score(tmp_path: Path) -> None:
    page, result = tmp_path / "report.html", _result(("top1", "-error", "-macs"))
    write_report(page, problem.space(), result, About(score="score of another search"))
    text = page.read_text(encoding="utf-8")
    assert "score of another search" not in text
    assert f"trial {result.trials[0].number} ({result.trials[0].id}): top1 " in text


def test_three_objectives_have_two_charts_without_a_line() -> None:
    figures = fronts(_result(("top1", "-error", "-macs")), "score")
    assert [figure.name for figure in figures] == ["top1 against error", "top1 against MACs"]
    assert all("line front" not in figure.svg for figure in figures)


def test_the_hypervolume_is_drawn_with_its_reference_point() -> None:
    result = _result()
    figure = hypervolume_by_batch(result, "score")
    assert f"MACs {result.reference_point['macs']:.4g}" in figure.caption
    assert figure.svg.count("<circle") == len(result.hypervolumes) == 1
