"""Hooks of MkDocs that complete the site: generated pages, and pages from outside of ``docs/``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs import api_reference, config_reference
from tools.docs.links import (
    DOCS,
    ROOT,
    links_of,
    place_in_repository,
    place_in_site,
    with_site_links,
)

OUTSIDE = ("MODEL_ZOO.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""Pages at the top of the repository; the site also has those of projects/ and model_zoo/."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, the pages outside of ``docs/``, and the files they link to."""
    for uri, text in _generated():
        files.append(File.generated(config, uri, content=text))
    for path in _linked_files():
        source = str(ROOT / path)
        files.append(File.generated(config, place_in_site(path), abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Returns the text of a page with links that lead to the same files in the site."""
    del config, files
    path = place_in_repository(page.file.src_uri)
    return with_site_links(markdown, path) if (ROOT / path).is_file() else markdown


def _generated() -> Iterator[tuple[str, str]]:
    yield "reference/config.md", config_reference.page()
    yield from api_reference.pages()
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    yield "citation.md", f"# Citation\n\n`CITATION.cff`:\n\n```yaml\n{citation}```\n"


def _pages() -> list[str]:
    folders = [
        p.relative_to(ROOT).as_posix()
        for folder in ("projects", "model_zoo")
        for p in sorted((ROOT / folder).rglob("*.md"))
    ]
    return [*OUTSIDE, *folders]


def _linked_files() -> list[str]:
    """Returns the pages outside of ``docs/``, and files outside of it that any page links to."""
    pages = _pages()
    inside = [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "docs").rglob("*.md"))]
    linked = {
        target
        for path in [*pages, *inside]
        for target in links_of(Path(ROOT / path).read_text(encoding="utf-8"), path)
    }
    others = {path for path in linked - {*pages} if not _is_left_out(path)}
    return [*pages, *sorted(others)]


def _is_left_out(path: str) -> bool:
    return bool(re.match(rf"{DOCS}|\.\.", path)) or not (ROOT / path).is_file()
