"""Lookup of packaged configs from any current folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3 import resources


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the model zoo inside of a package folder, as installed by a wheel."""
    root = tmp_path / "site" / "fbnetv3"
    (root / "model_zoo" / "recipes").mkdir(parents=True)
    (root / "model_zoo" / "fbnetv3_g.yaml").write_text("VERSION: 2\n")
    (root / "model_zoo" / "recipes" / "autotrain.yaml").write_text("VERSION: 2\n")
    monkeypatch.setattr(resources, "_PACKAGE", root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return root / "model_zoo"


@pytest.mark.parametrize(
    "name", ["fbnetv3_g.yaml", "model_zoo/fbnetv3_g.yaml", "./model_zoo/fbnetv3_g.yaml"]
)
def test_a_packaged_config_is_located_from_any_folder(zoo: Path, name: str) -> None:
    assert resources.find_config(name) == zoo / "fbnetv3_g.yaml"


def test_an_existing_file_has_priority(zoo: Path) -> None:
    Path("fbnetv3_g.yaml").write_text("custom\n")
    assert resources.find_config("fbnetv3_g.yaml").read_text() == "custom\n"


def test_an_unknown_name_lists_similar_ones(zoo: Path) -> None:
    with pytest.raises(resources.ConfigNotFoundError, match=r"did you mean .*fbnetv3_g\.yaml"):
        resources.find_config("model_zoo/fbnetv3_gg.yaml")


def test_an_absolute_path_is_not_looked_up_in_the_zoo(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(resources.ConfigNotFoundError, match=r"nowhere/fbnetv3_g\.yaml"):
        resources.find_config(tmp_path / "nowhere" / "fbnetv3_g.yaml")


def test_the_model_zoo_of_a_source_checkout(zoo: Path) -> None:
    zoo.rename(zoo.parent.parent / "model_zoo")
    assert resources.model_zoo_path() == zoo.parent.parent / "model_zoo"
    assert resources.list_configs() == ["fbnetv3_g.yaml", "recipes/autotrain.yaml"]


def test_the_error_of_a_missing_model_zoo(zoo: Path) -> None:
    zoo.rename(zoo.parent / "gone")
    with pytest.raises(resources.ConfigNotFoundError, match="reinstall"):
        resources.model_zoo_path()
