"""The yaml files of search spaces: those of the package, and those of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fbnetv3.errors import data_errors, did_you_mean
from fbnetv3.io import read_text
from fbnetv3.plain_yaml import YamlError, parse_yaml
from fbnetv3.registries import SPACES
from fbnetv3.search.checks import as_text
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.space_values import SpaceLoader

_FOLDER = Path(__file__).with_name("spaces")


def list_spaces() -> list[str]:
    """Returns the names of the packaged spaces."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def read_space_table(name: str) -> tuple[Path, dict[str, Any]]:
    """Returns the path and the content of a space's yaml.

    The content gets the name of the file as ``name`` if it has none.

    Args:
        name: One of :func:`list_spaces`, or a path that ends in .yaml or .yml.

    Raises:
        SearchError: The name is not a text, or the file cannot be read or is not a mapping of plain
            values.
    """
    as_text("the name of a space", name)
    path = Path(name) if Path(name).suffix in (".yaml", ".yml") else _FOLDER / f"{name}.yaml"
    try:
        table = parse_yaml(read_text(path, "config"), SpaceLoader)
    except OSError as error:
        known = list_spaces()
        raise SearchError(
            f"space {name!r}: cannot read {path} ({error.strerror or error}); give a path, one "
            f"of {', '.join(known)}, or a name that a file of --import registers"
            f"{did_you_mean(name, [*known, *SPACES])}"
        ) from error
    except (YamlError, ValueError) as error:
        raise SearchError(f"space {path} is not a yaml of plain values: {error}") from error
    if not isinstance(table, dict):
        raise SearchError(f"space {path} does not consist of KEY: VALUE pairs")
    return path, named(table, path.stem)


def named(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the table of a space, with a name if it has none."""
    return {**table, "name": table.get("name") or name}


@contextmanager
def naming_source(source: str | Path) -> Iterator[None]:
    """Lets the errors about a space's table begin with its file or its name.

    Args:
        source: Path of the file, or a text such as ``space my_space``.

    Raises:
        SearchError: The block raised a SearchError, or an error that values of an unexpected type
            cause.
    """
    try:
        with data_errors(SearchError, "a value of the space"):
            yield
    except SearchError as error:
        raise SearchError(f"{source}: {error}") from None
