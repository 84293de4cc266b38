"""The search over FBNet networks and training recipes (paper, section 3).

``run_search`` runs or resumes a search in a folder, ``evolve_budgets`` finds candidates for other
budgets than the search's by their predicted scores, ``preview_search`` shows the next batch without
training it, ``enqueue_candidates`` adds candidates to a run, and ``report_run`` writes the report.
Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fbnetv3.requires import EXTRA_OF, naming_extras, require, require_detectron2

_PACKAGES = ("optuna", "sqlalchemy", "scipy", "jinja2", "matplotlib")
"""Optional packages of a search and its report."""
_HOME_OF = {
    "EvolvedRun": "run",
    "FBNetSpace": "space",
    "SearchPreview": "preview",
    "SearchRun": "run",
    "enqueue_candidates": "run",
    "evolve_budgets": "run",
    "get_search_cfg": "keys",
    "list_spaces": "space",
    "preview_search": "preview",
    "read_search_config": "config_file",
    "report_run": "run",
    "run_search": "run",
}
__all__ = [
    "EvolvedRun",
    "FBNetSpace",
    "SearchPreview",
    "SearchRun",
    "enqueue_candidates",
    "evolve_budgets",
    "get_search_cfg",
    "list_spaces",
    "preview_search",
    "read_search_config",
    "report_run",
    "require_packages",
    "run_search",
]

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.config_file import read_search_config
    from fbnetv3.search.fbnet.keys import get_search_cfg
    from fbnetv3.search.fbnet.preview import SearchPreview, preview_search
    from fbnetv3.search.fbnet.run import (
        EvolvedRun,
        SearchRun,
        enqueue_candidates,
        evolve_budgets,
        report_run,
        run_search,
    )
    from fbnetv3.search.fbnet.space import FBNetSpace, list_spaces


def require_packages() -> None:
    """Checks that the optional packages of a search and its report are installed.

    Raises:
        MissingPackageError: One is missing; the message names the extra that installs it.
    """
    for package in _PACKAGES:
        require(package, EXTRA_OF[package])


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        if _HOME_OF[name] in ("preview", "run"):
            require_packages()
            require_detectron2()
        with naming_extras():
            return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
