"""The report: complete, escaped, and possible at any time of a run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fbnetv3.search import Choice, IntRange, JointNAS, SearchSpace, Trial
from fbnetv3.search.acquisition.avoidance import FailureSummary
from fbnetv3.search.predictors.predictor import fit_function
from fbnetv3.search.report import About, Winner, write_report
from fbnetv3.search.report.page import render
from fbnetv3.search.report.pretraining import compare_pretraining
from fbnetv3.search.result import SearchResult
from tests.search import problem

pytestmark = pytest.mark.usefixtures("short_training")

EVIL = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }}"
VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Parses a page, and checks that its tags are balanced."""

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
        """The rows of the table of all trials, each as html."""
        table = self.text.split('id="trials"')[1].split("<tbody>")[1].split("</tbody>")[0]
        return re.findall(r"<tr.*?</tr>", table, re.DOTALL)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def _page(space: SearchSpace, result: SearchResult, about: About | None = None) -> Page:
    page = Page(render(space, result, about or About()))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def searched() -> tuple[JointNAS, SearchResult]:
    """A finished search and its result; every seventh trial failed."""
    search = problem.search()

    def evaluate(trial: Trial) -> float:
        if trial.number % 7 == 3:
            raise ValueError(EVIL)
        return problem.evaluate(trial)

    return search, search.run(evaluate)


def test_every_trial_is_in_the_table(searched: tuple[JointNAS, SearchResult]) -> None:
    search, result = searched
    page = _page(search.space, result)
    assert len(page.rows) == len(result.trials)
    for trial, row in zip(result.trials, page.rows, strict=True):
        assert f"<code>{trial.id}</code>" in row
        if trial.score is not None:
            assert f'data-v="{trial.score}"' in row


def test_reasons_for_failure_are_shown_and_escaped(searched: tuple[JointNAS, SearchResult]) -> None:
    search, result = searched
    failed = [t for t in result.trials if t.state == "failed"]
    text = render(search.space, result, About(title=EVIL, facts={EVIL: EVIL}, resume=EVIL))
    assert len(failed) == 3
    assert "<script>alert" not in text
    assert text.count(html.escape(EVIL, quote=True).replace("&#x27;", "&#39;")[:40]) >= 3
    assert "49" not in text.split("<h2>Failures")[1].split("</section>")[0]


def test_the_pareto_front_is_drawn(searched: tuple[JointNAS, SearchResult]) -> None:
    search, result = searched
    page = _page(search.space, result, About(statistic="macs"))
    sentence = f"{len(result.pareto('macs'))} of {len(result.trials) - 3} trials are on the Pareto"
    assert sentence in page.text
    # The line has one step for each trial on the front.
    line = re.search(r'<path class="line front" d="(.*?)"', page.text)
    assert line is not None
    assert line[1].count("H") == len(result.pareto("macs"))


def test_nothing_is_fetched(searched: tuple[JointNAS, SearchResult]) -> None:
    search, result = searched
    page = _page(search.space, result)
    for tag, attributes in page.tags:
        for key in ("src", "href", "action", "data", "xlink:href"):
            assert (attributes.get(key) or "data:").startswith("data:"), (tag, attributes)
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "@import" not in page.text
    assert "default-src 'none'" in page.text


def test_charts_have_labels_and_headings_a_scope(searched: tuple[JointNAS, SearchResult]) -> None:
    search, result = searched
    page = _page(search.space, result)
    charts = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(charts) >= 5
    assert all(a.get("role") == "img" and a.get("aria-label") for a in charts)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")
    assert "nan" not in "".join(re.findall(r'd="([^"]*)"', page.text))


def test_sections_of_a_finished_run(searched: tuple[JointNAS, SearchResult]) -> None:
    search, result = searched
    fit = fit_function("default")
    rows = compare_pretraining(search.space, search.plan.pool, result.trials, fit, 0)
    winner = Winner("best", ("score 3",), "train it")
    about = About(resume="resume it", pretraining=rows, winners=(winner,), budgets=(600.0,))
    text = _page(search.space, result, about).text
    for part in (
        "Best so far",
        "Best candidate by budget",
        "Pareto front",
        "Rank correlation by epoch",
        "Prediction before training",
        "Predictor, cross-validated",
        "With and without pre-training",
        "Recipe: score by value",
        "Architecture: score by value",
        "Failures",
        "All trials",
        "<pre>resume it</pre>",
        "<pre>train it</pre>",
    ):
        assert part in text, part
    best = result.best
    assert f"{best.score:.4g}" in text
    assert f"{best.number} (<code>{best.id}</code>)" in text


def _search_of(space: SearchSpace, **changes: object) -> JointNAS:
    return JointNAS(space, pool_size=50, batch_size=6, iterations=2, finalists=0, **changes)  # type: ignore[arg-type]


def test_no_trials_yet() -> None:
    search = problem.search()
    assert "No trial has a score yet" in _page(search.space, search.result()).text


def test_only_failed_trials() -> None:
    search = problem.search(iterations=1, finalists=0, stop_after_failures=0)
    result = search.run(lambda trial: None)
    page = _page(search.space, result)
    assert len(page.rows) == 8
    assert "no score was returned" in page.text
    assert page.count("svg") == 0


def test_a_search_of_recipes_only_has_no_costs() -> None:
    space = SearchSpace([IntRange("a", 0, 30), Choice("b", ("x", "<y>", "z"))])
    search = _search_of(space)
    result = search.run(lambda t: float(t.config["a"]))
    page = _page(space, result, About(statistic="macs"))
    assert "Best candidate by budget" not in page.text
    assert "Pareto front" not in page.text
    assert "Best so far" in page.text
    assert "<y>" not in page.text


def test_without_epoch_scores_there_is_no_curve_by_epoch() -> None:
    search = problem.search(iterations=1, finalists=0)
    result = search.run(lambda t: problem.quality(t.config))
    assert "Rank correlation by epoch" not in _page(search.space, result).text


def test_the_curve_is_shown_where_early_stopping_is_off() -> None:
    search = problem.search(iterations=1, finalists=0, early_stop_threshold=None)
    text = _page(search.space, search.run(problem.evaluate)).text
    assert "No early stop is in use: it is off" in text


@pytest.mark.parametrize(
    ("parts", "batch_size", "iterations"), [(1, 8, 2), (2, 16, 2), (3, 48, 1), (4, 16, 2)]
)
def test_the_curve_is_that_of_all_parts_of_the_first_batch(
    parts: int, batch_size: int, iterations: int
) -> None:
    """It is the same as with early stopping, which ranks the whole first batch."""
    changes = {"batch_size": batch_size, "iterations": iterations, "finalists": 0}
    shown = []
    for threshold in (0.92, None):
        search = problem.search(first_parts=parts, early_stop_threshold=threshold, **changes)
        while sum(t.state == "complete" for t in search.trials) < batch_size:
            for trial in search.ask():
                search.tell([trial], [problem.evaluate(trial)])
        result = search.result()
        assert result.first_parts == parts
        page = _page(search.space, result).text
        chart = page.split(">Rank correlation by epoch<")[1].split("</figure>")[0]
        shown.append(re.findall(r"epoch \d+: -?\d\.\d{3}", chart))
    assert shown[0] == shown[1] != []


def test_trials_are_listed_with_the_unit_of_their_scores(
    searched: tuple[JointNAS, SearchResult],
) -> None:
    search, result = searched
    text = render(search.space, result, About(unit="iteration"))
    assert '<th scope="col" class="n">iterations</th>' in text
    assert '<th scope="col" class="n">epochs</th>' not in text


@pytest.mark.parametrize("count", [1, 3])
def test_a_running_search(count: int) -> None:
    search = problem.search()
    trials = search.ask()
    search.tell(trials[:count], [problem.evaluate(t) for t in trials[:count]])
    page = _page(search.space, search.result())
    assert len(page.rows) == count
    assert "Best so far" in page.text


def test_equal_scores_and_a_single_cost() -> None:
    search = problem.search(iterations=1, finalists=0)
    _page(search.space, search.run(lambda trial: 1.0))


def test_a_report_of_many_trials_stays_small(
    searched: tuple[JointNAS, SearchResult], tmp_path: Path
) -> None:
    search, result = searched
    copies = (result.trials * 106)[:2000]
    trials = [Trial(**{**t.to_dict(), "number": i}) for i, t in enumerate(copies)]
    many = SearchResult(trials, None, result.early_stop, result.report_cards, {})
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
    assert again.report_cards == result.report_cards


def test_a_storage_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'search.db'}"
    search = problem.search(storage=url)
    first = search.ask()
    search.tell(first, [problem.evaluate(t) for t in first])
    second = search.ask()
    search.tell(second[:3], [problem.evaluate(t) for t in second[:3]])
    again = problem.search(storage=url).result()
    assert problem.summary(again) == problem.summary(search.result())
    assert [c.trials for c in again.report_cards] == [8]
    before = problem.search(storage=url)
    before.result()
    assert [t.id for t in before.ask()] == [t.id for t in second[3:]]


BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
# Runs in the page: sorts by score twice, and stores both orders in the title.
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
def test_a_browser_shows_and_sorts_the_table(
    searched: tuple[JointNAS, SearchResult], tmp_path: Path
) -> None:
    search, result = searched
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
    assert seen["up"][-3:] == seen["down"][-3:] == ["", "", ""]  # failed trials stay last
    assert seen["errors"] == []
    assert seen["fetched"] == []
    assert "CONSOLE" not in run.stderr


def test_predicted_and_earlier_failures_are_stated() -> None:
    search = problem.search(iterations=1, finalists=0)
    result = search.run(lambda trial: problem.quality(trial.config))
    result.trials[2].earlier_reasons = ["CUDA error <b>"]
    page = _page(search.space, replace(result, failures=FailureSummary(7, 12, 0.25)))
    assert "learned from 7 failures for lack of memory or time and 12 scores; 25% of" in page.text
    assert "earlier: CUDA error &lt;b&gt;" in page.text
    assert "1 of the trials failed before" in page.text
