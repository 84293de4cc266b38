"""The documentation site: it has every key and public name, and builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fbnetv3
from fbnetv3.config import KEYS
from fbnetv3.search.fbnet.keys import KEYS as SEARCH_KEYS
from tests.conftest import ROOT
from tools.docs import api_reference, config_reference
from tools.docs.links import links_of, place_in_repository, place_in_site, with_site_links

pytest.importorskip("mkdocs")

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds a site in a process of its own, as ``make docs`` does."""
    command = ["-m", "mkdocs", "build", "--strict", "--config-file", str(config), "-d", str(site)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("docs/search.md", "search.md"),
        ("docs/tutorials/photos.ipynb", "tutorials/photos.ipynb"),
        ("SECURITY.md", "repository/SECURITY.md"),
        ("projects/cifar10/README.md", "repository/projects/cifar10/README.md"),
    ],
)
def test_a_file_has_a_place(path: str, place: str) -> None:
    assert place_in_site(path) == place
    assert place_in_repository(place) == path


@pytest.mark.parametrize(
    ("path", "link", "in_site"),
    [
        ("docs/zoo.md", "training.md#speed", "training.md#speed"),
        ("docs/zoo.md", "../MODEL_ZOO.md", "repository/MODEL_ZOO.md"),
        ("CONTRIBUTING.md", "docs/search.md", "../search.md"),
        ("projects/cifar10/README.md", "../../docs/scale.md", "../../../scale.md"),
        ("projects/cifar10/README.md", "curves.png", "curves.png"),
        ("docs/zoo.md", "https://example.org", "https://example.org"),
        ("docs/zoo.md", "#op", "#op"),
    ],
)
def test_links_lead_to_the_same_files(path: str, link: str, in_site: str) -> None:
    assert with_site_links(f"a [b]({link}) c", path) == f"a [b]({in_site}) c"


def test_code_has_no_links() -> None:
    text = "`[a](b.md)`\n\n```python\nx[0](c.md)\n```\n"
    assert with_site_links(text, "MODEL_ZOO.md") == text
    assert list(links_of(text + "[d](e.md)", "projects/README.md")) == ["projects/e.md"]


def test_the_page_of_keys_has_every_key() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", config_reference.page(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {*KEYS, *(f"SEARCH.{key}" for key in SEARCH_KEYS)} <= set(listed)


def test_every_subpackage_with_public_names_has_a_place() -> None:
    packages = [p.parent for p in (ROOT / "fbnetv3").rglob("__init__.py")]
    public = {
        ".".join(p.relative_to(ROOT).parts)
        for p in packages
        if "__all__" in (p / "__init__.py").read_text(encoding="utf-8")
    }
    modules = [module for _, modules in api_reference.PAGES.values() for module in modules]
    assert public <= set(modules)
    assert len(modules) == len(set(modules))


def test_every_generated_page_is_in_the_menu() -> None:
    for uri, _ in api_reference.pages():
        assert f": {uri}\n" in CONFIG


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n[a](no.md) [b](index.md#no)\n")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n")
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\nhooks: []\nplugins: [search]\nnav: [index.md]\n"
        f"docs_dir: {tmp_path / 'docs'}\nextra_css: []\n"
    )
    built = build(config, tmp_path / "site")
    assert built.returncode == 1
    assert "'no.md'" in built.stderr
    assert "'#no'" in built.stderr or "index.md#no" in built.stderr
    assert "forgotten.md" in built.stderr
    assert built.stderr.count("WARNING") == 3


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    built = build(ROOT / "mkdocs.yml", tmp_path)
    assert built.returncode == 0, built.stderr
    api = (tmp_path / "reference" / "api" / "fbnetv3.html").read_text(encoding="utf-8")
    documented = {name for name in fbnetv3.__all__ if f'id="fbnetv3.{name}"' in api}
    assert documented == {*fbnetv3.__all__} - {"__version__"}
    pages = "".join(p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.html"))
    loaded = re.findall(r'(?:src|<link [^>]*href)="(https?://[^"]+)"', pages)
    assert loaded == []
