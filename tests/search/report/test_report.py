"""The report: complete, escaped, and made of whatever a run has so far."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fbnetv3.search import Choice, IntRange, JointNAS, SearchSpace, Trial
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.report import About, Winner, write_report
from fbnetv3.search.report.page import render
from fbnetv3.search.report.pretraining import Comparison, compare_pretraining
from fbnetv3.search.report.svg import Axis, Chart, short
from fbnetv3.search.result import SearchResult
from tests.search import problem

EVIL = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }}"
VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Reads a page: rows of the trials' table, marks of charts, tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @property
    def rows(self) -> list[str]:
        """The rows of the table of all trials, as html."""
        table = self.text.split('id="trials"')[1].split("<tbody>")[1].split("</tbody>")[0]
        return re.findall(r"<tr.*?</tr>", table, re.DOTALL)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def _page(space: SearchSpace, result: SearchResult, about: About | None = None) -> Page:
    page = Page(render(space, result, about or About()))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def found() -> tuple[JointNAS, SearchResult]:
    search = problem.search()

    def evaluate(trial: Trial) -> float:
        if trial.number % 7 == 3:
            raise ValueError(EVIL)
        return problem.evaluate(trial)

    return search, search.run(evaluate)


def test_every_trial_is_in_the_table(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    page = _page(search.space, result)
    assert len(page.rows) == len(result.trials)
    for trial, row in zip(result.trials, page.rows, strict=True):
        assert f"<code>{trial.id}</code>" in row
        if trial.score is not None:
            assert f'data-v="{trial.score}"' in row


def test_reasons_of_failure_are_told_and_escaped(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    failed = [t for t in result.trials if t.state == "failed"]
    text = render(search.space, result, About(title=EVIL, facts={EVIL: EVIL}, resume=EVIL))
    assert len(failed) == 3
    assert "<script>alert" not in text
    assert text.count(html.escape(EVIL, quote=True).replace("&#x27;", "&#39;")[:40]) >= 3
    assert "49" not in text.split("<h2>Failures")[1].split("</section>")[0]


def test_the_front_is_that_of_the_result(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    page = _page(search.space, result, About(statistic="macs"))
    words = f"{len(result.pareto('macs'))} of {len(result.trials) - 3} trials are on the Pareto"
    assert words in page.text
    # the drawn line has a corner for each trial on the front
    line = re.search(r'<path class="line front" d="(.*?)"', page.text)
    assert line is not None
    assert line[1].count("H") == len(result.pareto("macs"))


def test_nothing_is_fetched(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    page = _page(search.space, result)
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "data", "xlink:href"):
            assert (attributes.get(key) or "data:").startswith("data:"), (tag, attributes)
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "@import" not in page.text
    assert "default-src 'none'" in page.text


def test_charts_speak_and_headings_have_a_scope(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    page = _page(search.space, result)
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) >= 5
    assert all(a.get("role") == "img" and a.get("aria-label") for a in charts)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")
    assert "nan" not in "".join(re.findall(r'd="([^"]*)"', page.text))


def test_sections_of_a_whole_run(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    fit = fit_function("default")
    rows = compare_pretraining(search.space, search.plan.pool, result.trials, fit, 0)
    winner = Winner("best", ("score 3",), "train it")
    about = About(resume="go on", pretraining=rows, winners=(winner,), budgets=(600.0,))
    text = _page(search.space, result, about).text
    for words in (
        "Best so far",
        "Best per budget",
        "Pareto front",
        "Rank correlation by epoch",
        "Prediction before training",
        "Predictor, cross-validated",
        "With and without pre-training",
        "Recipe: score by value",
        "Architecture: score by value",
        "Failures",
        "All trials",
        "<pre>go on</pre>",
        "<pre>train it</pre>",
    ):
        assert words in text, words
    best = result.best
    assert f"{best.score:.4g}" in text
    assert f"{best.number} (<code>{best.id}</code>)" in text


def test_pretraining_is_compared_on_the_same_trials(found: tuple[JointNAS, SearchResult]) -> None:
    search, result = found
    complete = [t for t in result.trials if t.state == "complete"]
    fit = fit_function("paper")  # which reads architectures through the encoder alone
    rows = compare_pretraining(search.space, search.plan.pool, result.trials, fit, 0)
    assert rows[-1].trials == len(complete)
    assert [r.trials for r in rows] == sorted({r.trials for r in rows})
    assert all(-1 <= r.plain <= 1 and -1 <= r.pretrained <= 1 for r in rows)
    assert rows[-1].pretrained != rows[-1].plain
    # Kendall (1938): the deviation of tau under chance, n = 10
    assert Comparison(10, 0, 0).chance == pytest.approx(1.645 * math.sqrt(50 / 810))


def _search_of(space: SearchSpace, **changes: object) -> JointNAS:
    return JointNAS(space, pool_size=50, batch_size=6, iterations=2, finalists=0, **changes)  # type: ignore[arg-type]


def test_no_trials_yet() -> None:
    search = problem.search()
    text = _page(search.space, search.result(), About(running=8)).text
    assert "nothing to draw" in text
    assert "without result yet<strong>8" in text


def test_failures_only() -> None:
    search = problem.search(iterations=1, finalists=0)
    result = search.run(lambda trial: None)
    page = _page(search.space, result)
    assert len(page.rows) == 8
    assert "no score was returned" in page.text
    assert page.count("svg") == 0


def test_a_recipe_only_search_has_no_costs() -> None:
    space = SearchSpace([IntRange("a", 0, 30), Choice("b", ("x", "<y>", "z"))])
    search = _search_of(space)
    result = search.run(lambda t: float(t.config["a"]))
    page = _page(space, result, About(statistic="macs"))
    assert "Best per budget" not in page.text
    assert "Pareto front" not in page.text
    assert "Best so far" in page.text
    assert "<y>" not in page.text
    assert (
        compare_pretraining(space, search.plan.pool, result.trials, fit_function("paper"), 0) == []
    )


def test_without_epoch_scores_there_is_no_curve_by_epoch() -> None:
    search = problem.search(iterations=1, finalists=0)
    result = search.run(lambda t: problem.quality(t.config))
    assert "Rank correlation by epoch" not in _page(search.space, result).text


def test_the_curve_is_shown_where_early_stopping_is_off() -> None:
    search = problem.search(iterations=1, finalists=0, early_stop_threshold=None)
    text = _page(search.space, search.run(problem.evaluate)).text
    assert "Early stopping is off" in text


@pytest.mark.parametrize("told", [1, 3])
def test_a_run_that_goes_on(told: int) -> None:
    search = problem.search()
    trials = search.ask()
    search.tell(trials[:told], [problem.evaluate(t) for t in trials[:told]])
    page = _page(search.space, search.result())
    assert len(page.rows) == told
    assert "Best so far" in page.text


def test_equal_scores_and_a_single_cost() -> None:
    search = problem.search(iterations=1, finalists=0)
    _page(search.space, search.run(lambda trial: 1.0))


def test_many_trials_stay_small(found: tuple[JointNAS, SearchResult], tmp_path: Path) -> None:
    search, result = found
    trials = [Trial(**{**t.to_dict(), "number": i}) for i, t in enumerate(result.trials * 106)][
        :2000
    ]
    many = SearchResult(trials, None, result.early_stop, result.cards, {})
    path = tmp_path / "report.html"
    write_report(path, search.space, many, About(statistic="macs"))
    assert path.stat().st_size < 4e6
    assert len(Page(path.read_text()).rows) == 2000


def test_the_report_of_a_storage_needs_no_proposals(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    result = problem.search(storage=url).run(problem.evaluate)
    again = problem.search(storage=url).result()
    assert problem.summary(again) == problem.summary(result)
    assert again.early_stop == result.early_stop
    assert again.cards == result.cards


def test_a_storage_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(storage=url)
    first = search.ask()
    search.tell(first, [problem.evaluate(t) for t in first])
    second = search.ask()
    search.tell(second[:3], [problem.evaluate(t) for t in second[:3]])
    again = problem.search(storage=url).result()
    assert problem.summary(again) == problem.summary(search.result())
    assert [c.trials for c in again.cards] == [8]
    before = problem.search(storage=url)
    before.result()
    assert [t.id for t in before.ask()] == [t.id for t in second[3:]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.5e6, "1.5M"), (2e9, "2G"), (9999, "9999"), (12345, "12.35k"), (0, "0"), (1e-5, "1e-05")],
)
def test_numbers_for_people(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize("axis", [Axis("", 0.2, 9.7), Axis("", 1e-6, 3e-1, log=True)])
def test_ticks_lie_on_the_axis(axis: Axis) -> None:
    values = [value for value, _ in axis.ticks()]
    assert 3 <= len(values) <= 7
    assert all(axis.low <= v <= axis.high for v in values)
    assert values == sorted(values)


def test_points_land_where_they_belong() -> None:
    chart = Chart("c", Axis("x", 0, 10), Axis("y", 1, 100, log=True), width=172, height=156)
    chart.dots([0, 10, 5, math.nan], [1, 100, 10, 5], "k", ["a", "b", "c", "d"])
    places = re.findall(r'cx="(.*?)" cy="(.*?)"', chart.svg())
    assert places == [("58.0", "112.0"), ("158.0", "12.0"), ("108.0", "62.0")]


BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
# Runs in the page: sorts by score twice and writes what it saw.
PROBE = """
<script>
const heads = [...document.querySelectorAll('#trials th[scope=col] button')];
const rows = () => [...document.querySelectorAll('#trials tbody tr')];
const scores = () => rows().map((r) => r.cells[4].dataset.v);
heads[4].click(); const up = scores(); heads[4].click(); const down = scores();
const fetched = performance.getEntriesByType('resource').map((e) => e.name);
document.title = JSON.stringify({up, down, fetched, errors: window.errors ?? []});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_shows_and_sorts_it(found: tuple[JointNAS, SearchResult], tmp_path: Path) -> None:
    search, result = found
    text = render(search.space, result, About())
    catch = "<script>window.errors = []; onerror = (m) => window.errors.push(m);</script>"
    text = text.replace("<title>", f"{catch}<title>", 1).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "report.html").write_text(text)
    log = tmp_path / "net.json"
    run = subprocess.run(
        [
            str(BROWSER),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"file://{tmp_path / 'report.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)
    assert title is not None, run.stderr[-2000:]
    seen = json.loads(html.unescape(title[1]))
    scores = sorted(str(t.score) for t in result.trials if t.score is not None)
    numbers = [float(v) for v in seen["up"] if v]
    assert sorted(v for v in seen["up"] if v) == scores
    assert numbers == sorted(numbers)
    assert [float(v) for v in seen["down"] if v] == numbers[::-1]
    assert seen["up"][-3:] == seen["down"][-3:] == ["", "", ""]  # failures stay below
    assert seen["errors"] == []
    assert seen["fetched"] == []
    assert "CONSOLE" not in run.stderr
