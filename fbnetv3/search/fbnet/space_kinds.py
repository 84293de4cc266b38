"""Opens the space of a config: over FBNets, or over the arguments of another network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fbnetv3.registries import SPACES
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.network_space import NetworkSpace
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.space_file import named, naming_source, read_space_table
from fbnetv3.search.fbnet.table_space import TableSpace


def open_space(name: str, fixed: Mapping[str, Any], network: str, side: int) -> TableSpace:
    """Returns a space by its name.

    Args:
        name: Name of a packaged or registered space, or path of a yaml.
        fixed: Mapping from variable to its fixed value; see SEARCH.FIX. It must be empty for a
            space that is registered as a :class:`TableSpace`, which is returned as it is.
        network: MODEL.ARCH of the config, for a space of arguments that names no network.
        side: Side of the images in pixels, unless the space sets it.

    Raises:
        SearchError: The space cannot be read, or is invalid; or ``fixed`` has variables of a space
            that is registered as a :class:`TableSpace`.
    """
    path: str | Path = f"space {name}"
    if name in SPACES:
        table = SPACES.get(name)()
        if isinstance(table, TableSpace):
            if fixed:
                raise SearchError(
                    f"SEARCH.FIX fixes {', '.join(fixed)} of the space {name}, which is registered "
                    f"as a finished {type(table).__name__}; give it fixed= where it is made, or "
                    'return its table, and set SEARCH.FIX "[]", in a new OUTPUT_DIR if the search '
                    "has begun"
                )
            return table
        table = named(table, name) if isinstance(table, Mapping) else table
    else:
        path, table = read_space_table(name)
    with naming_source(path):
        if isinstance(table, Mapping) and ("network" in table or "arguments" in table):
            return NetworkSpace(table, fixed, network=network, side=side)
        return FBNetSpace(table, fixed)
