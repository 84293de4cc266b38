"""The search over FBNet networks and training recipes (paper, section 3).

``run_search`` runs or resumes a search in a folder, ``evolve_budgets`` finds winners for other
budgets without training, and ``report_run`` writes the report. Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "EvolvedRun": "run",
    "FBNetSpace": "space",
    "SearchRun": "run",
    "evolve_budgets": "run",
    "get_search_cfg": "keys",
    "list_spaces": "space",
    "read_search_config": "config_file",
    "report_run": "run",
    "run_search": "run",
}
__all__ = [
    "EvolvedRun",
    "FBNetSpace",
    "SearchRun",
    "evolve_budgets",
    "get_search_cfg",
    "list_spaces",
    "read_search_config",
    "report_run",
    "run_search",
]

if TYPE_CHECKING:
    from fbnetv3.search.fbnet.config_file import read_search_config
    from fbnetv3.search.fbnet.keys import get_search_cfg
    from fbnetv3.search.fbnet.run import (
        EvolvedRun,
        SearchRun,
        evolve_budgets,
        report_run,
        run_search,
    )
    from fbnetv3.search.fbnet.space import FBNetSpace, list_spaces


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
