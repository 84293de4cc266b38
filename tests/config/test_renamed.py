"""Old names of config keys still work, with a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbnetv3.config import ConfigError, get_cfg, iter_keys, node
from fbnetv3.config.renamed import RENAMED_KEYS, RenamedKey, new_name, with_new_names

RENAMED = {"SOLVER.RATE": RenamedKey("SOLVER.BASE_LR", "0.3.0", "0.5.0")}


def test_new_names_are_keys_and_old_ones_are_not() -> None:
    keys = {key for key, _ in iter_keys(get_cfg())}
    assert {new.key for new in RENAMED_KEYS.values()} <= keys
    assert set(RENAMED_KEYS) & keys == set()


def test_a_key_of_a_file() -> None:
    values = {"SOLVER": {"RATE": 0.5, "MAX_ITER": 3}, "OUTPUT_DIR": "out"}
    with pytest.warns(FutureWarning, match=r"the config key SOLVER\.RATE is .*use SOLVER\.BASE_LR"):
        renamed = with_new_names(values, RENAMED)
    assert renamed == {"SOLVER": {"BASE_LR": 0.5, "MAX_ITER": 3}, "OUTPUT_DIR": "out"}
    assert values["SOLVER"] == {"RATE": 0.5, "MAX_ITER": 3}
    assert with_new_names({"SOLVER": 3}, RENAMED) == {"SOLVER": 3}


def test_both_names_are_refused() -> None:
    values = {"SOLVER": {"RATE": 0.5, "BASE_LR": 0.5}}
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ConfigError, match=r"give SOLVER\.BASE_LR alone"),
    ):
        with_new_names(values, RENAMED)


def test_a_config_reads_old_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "new_name", lambda key: new_name(key, RENAMED))
    monkeypatch.setattr(node, "with_new_names", lambda values: with_new_names(values, RENAMED))
    cfg = get_cfg()
    path = tmp_path / "old.yaml"
    path.write_text("SOLVER: {RATE: 0.5}\n")
    with pytest.warns(FutureWarning, match="SOLVER.RATE"):
        cfg.merge_from_file(str(path))
    assert cfg.SOLVER.BASE_LR == 0.5
    with pytest.warns(FutureWarning, match="SOLVER.RATE"):
        cfg.merge_from_list(["SOLVER.RATE", "0.25"])
    assert cfg.SOLVER.BASE_LR == 0.25
    assert "SOLVER.BASE_LR" in cfg.given_keys(bases=False)
