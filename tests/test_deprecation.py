"""Old names work, and each use warns with what to use."""

from __future__ import annotations

import warnings

import pytest

from fbnetv3._deprecation import deprecated, renamed_argument, warn_deprecated


@deprecated("0.3.0", "0.5.0", "fbnetv3.build_model")
def create(name: str) -> str:
    """Builds."""
    return name.upper()


@renamed_argument("depth", "layers", since="0.3.0", removed_in="0.5.0")
def build(name: str, *, layers: int = 1) -> tuple[str, int]:
    """Builds."""
    return name, layers


def test_a_function() -> None:
    text = r"create is deprecated since 0\.3\.0 and is removed in 0\.5\.0; use fbnetv3\.build_model"
    with pytest.warns(FutureWarning, match=text) as caught:
        assert create("a") == "A"
    assert caught[0].filename == __file__
    assert create.__doc__ == "Builds."


def test_a_class() -> None:
    @deprecated("0.3.0", "0.5.0", "New")
    class Old:
        def __init__(self, value: int) -> None:
            self.value = value

    with pytest.warns(FutureWarning, match="Old is deprecated"):
        assert Old(3).value == 3


def test_an_argument() -> None:
    with pytest.warns(FutureWarning, match="the argument depth of build .*; use layers") as caught:
        assert build("a", depth=3) == ("a", 3)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build("a", layers=3) == ("a", 3)
    with pytest.raises(TypeError, match="give layers alone"):
        build("a", depth=3, layers=2)  # type: ignore[call-arg]


def test_a_warning_shows_the_line_of_the_caller() -> None:
    def old_name() -> None:
        warn_deprecated("old_name", since="0.3.0", removed_in="0.5.0", instead="new_name")

    with pytest.warns(FutureWarning, match="use new_name") as caught:
        old_name()
    assert caught[0].filename == __file__
