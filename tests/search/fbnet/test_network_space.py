"""Spaces over the arguments of networks of libraries and users, and their costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fbnetv3.arch.latency import LatencyTable
from fbnetv3.modeling.counting import count_network
from fbnetv3.recipe import Recipe
from fbnetv3.registries import NETWORKS, SPACES, STATISTICS
from fbnetv3.search import JointNAS
from fbnetv3.search.errors import SearchError
from fbnetv3.search.fbnet.network_space import NamedNetwork, NetworkSpace
from fbnetv3.search.fbnet.network_statistics import NetworkCosts
from fbnetv3.search.fbnet.space import FBNetSpace
from fbnetv3.search.fbnet.space_kinds import open_space
from fbnetv3.search.fbnet.statistics import with_registered
from fbnetv3.search.space.constraints import Constraint, Costs
from fbnetv3.search.space.feasible import FeasibleSpace

RECIPE = {"lr": {"range": [0.01, 0.1], "log": True}}
TABLE: dict[str, Any] = {
    "network": "my/net?bias=true",
    "arguments": {
        "widths": [{"range": [4, 8, 4]}, {"range": [6, 12, 2]}],
        "groups": {"choices": [1, 3, None]},
        "kernels": {"choices": [[3, 3], [3, 1]]},
        "act": {"choices": ["relu", "silu"]},
    },
    "recipe": RECIPE,
}
CALLS: list[dict[str, Any]] = []


def make(
    num_classes: int,
    widths: tuple[int, ...] = (4, 8),
    groups: int = 1,
    kernels: tuple[int, ...] = (3, 3),
    act: str = "relu",
    bias: bool = False,
) -> nn.Module:
    CALLS.append({"widths": widths, "groups": groups, "kernels": kernels, "act": act})
    layers: list[nn.Module] = []
    for c_in, c_out, k in zip((3, *widths), widths, kernels, strict=False):
        layers += [
            nn.Conv2d(c_in, c_out, k, padding=k // 2, bias=bias, groups=1 if c_in == 3 else groups),
            {"relu": nn.ReLU, "silu": nn.SiLU}[act](),
        ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes)]
    return nn.Sequential(*layers, *head)


@pytest.fixture(autouse=True)
def _network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS._entries, "my/net", make)
    CALLS.clear()


def _space(**changes: Any) -> NetworkSpace:
    return NetworkSpace({**TABLE, **changes}, side=8)


def _config(**values: Any) -> dict[str, Any]:
    plain = {"widths_1": 4, "widths_2": 6, "groups": 1, "kernels": "[3,3]", "act": "relu"}
    return {**plain, "lr": 0.1, **values}


def test_variables_are_named_after_arguments() -> None:
    space = _space()
    assert space.space.names == ("widths_1", "widths_2", "groups", "kernels", "act", "lr")
    assert space.has_architecture
    assert "of the network my/net" in space.size_lines()[0]


def test_a_candidate_is_a_name_with_arguments(tmp_path: Path) -> None:
    space = _space()
    name = "my/net?bias=True&widths=[4,6]&groups=1&kernels=[3,3]&act=relu"
    assert space.network_name(_config()) == name
    keys = space.network_keys(_config(), 10, tmp_path / "arch.yaml")
    assert keys["MODEL.ARCH"] == name
    assert "INPUT.RESOLUTION" not in keys
    assert not list(tmp_path.iterdir())
    left_out = space.network_name(_config(groups=None, kernels="[3,1]"))
    assert left_out == "my/net?bias=True&widths=[4,6]&kernels=[3,1]&act=relu"
    assert space.recipe(_config(), Recipe(warmup_epochs=0.0)).lr == 0.1


def test_the_resolution_may_be_searched(tmp_path: Path) -> None:
    space = _space(resolution={"range": [8, 12, 4]})
    keys = space.network_keys(_config(resolution=12), 10, tmp_path / "arch.yaml")
    assert keys["INPUT.RESOLUTION"] == 12
    small, large = (_config(resolution=side) for side in (8, 12))
    macs = space.statistics(10)([small, large])["macs"]
    assert macs[1] > 2 * macs[0]


def test_costs_are_those_of_the_network_and_counted_once() -> None:
    statistics = _space().statistics(10)
    CALLS.clear()
    first = statistics([_config(lr=lr) for lr in (0.01, 0.02, 0.1)])
    assert len(CALLS) == 1
    statistics([_config()])
    assert len(CALLS) == 1
    cost = count_network("my/net?bias=true&widths=[4,6]", 10, 8)
    assert first["macs"].tolist() == [cost.macs] * 3
    assert first["params"].tolist() == [cost.params] * 3
    assert first["activations"].tolist() == [cost.activations] * 3


def test_networks_that_cannot_be_built_have_no_costs() -> None:
    """3 groups do not divide the 4 or 8 channels between the layers."""
    space = _space()
    statistics = space.statistics(10)
    values = statistics([_config(groups=3), _config(groups=1)])
    assert np.isnan(values["macs"]).tolist() == [True, False]
    assert np.isnan(values["params"]).tolist() == [True, False]
    (line,) = space.costs(10).refusal_lines()
    assert line.startswith(
        "1 of 2 networks cannot be built or run and are not proposed, such as my/net?"
    )
    assert "groups" in line


@pytest.mark.parametrize("bounds", [(), (Constraint("macs", upper=3e4),)])
def test_networks_that_cannot_be_built_are_not_proposed(bounds: tuple[Constraint, ...]) -> None:
    space = _space()
    feasible = FeasibleSpace(Costs(space.space, space.statistics(10)), bounds)
    pool = feasible.sample(200, seed=0)
    groups = [config["groups"] for config in space.space.configs(pool.levels)]
    assert 3 not in groups
    assert {1, None} == set(groups)
    assert all(np.isfinite(values).all() for values in pool.statistics.values())
    levels = space.space.levels([_config(groups=3), _config()])
    assert feasible.are_feasible(levels).tolist() == [False, True]


def test_a_search_proposes_and_evolves_networks_only() -> None:
    space = _space()
    search = JointNAS(
        space.space,
        statistics=space.statistics(10),
        constraints=[Constraint("macs", upper=6e4)],
        pool_size=64,
        batch_size=6,
        iterations=2,
        finalists=2,
        seed=0,
    )
    result = search.run(lambda trial: trial.config["widths_1"] + trial.config["lr"])
    trials = [*result.trials, *search.evolve(top_k=3)]
    assert len(result.trials) == 14
    assert all(t.config["groups"] != 3 and t.statistics["macs"] <= 6e4 for t in trials)


def test_registered_statistics_are_called_with_the_network_of_a_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def length(network: NamedNetwork) -> float:
        assert (network.resolution, network.num_classes) == (8, 10)
        return len(network.name)

    monkeypatch.setitem(STATISTICS._entries, "my_length", length)
    space = _space()
    statistics = with_registered(space.statistics(10), space, ["my_length", "macs"], 10)
    values = statistics([_config(), _config(groups=3)])
    assert values["my_length"][0] == len(space.network_name(_config()))
    assert np.isnan(values["my_length"][1])  # of a network that cannot be built
    bound = (Constraint("my_length", upper=62),)
    pool = FeasibleSpace(Costs(space.space, statistics), bound).sample(50, seed=0)
    assert len(pool)
    assert pool.statistics["my_length"].max() <= 62


def test_costs_are_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    costs = NetworkCosts(10)
    costs.keep_in(path)
    name, refused = "my/net?widths=[4,6]", "my/net?widths=[4,6]&groups=3"
    before = [costs.of(name, 8), costs.of(refused, 8)]
    costs.save()
    CALLS.clear()
    again = NetworkCosts(10)
    again.read_file(path)
    assert [again.of(name, 8), again.of(refused, 8)] == before
    assert not CALLS
    other = NetworkCosts(5)  # of another number of classes
    other.read_file(path)
    assert other.of(name, 8) != before[0]


@pytest.mark.parametrize(
    "change",
    [
        {"a at 8 px": [1, 2]},
        {"a at 8 px": [1, 2, float("nan")]},
        {"a at 8 px": [1, 2, -3]},
        {"a at 8 px": None},
        [],
    ],
)
def test_a_damaged_file_of_costs_is_ignored(
    tmp_path: Path, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "costs.json"
    costs = NetworkCosts(10)
    costs.of("my/net", 8)
    costs.keep_in(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"costs": change}))
    again = NetworkCosts(10)
    again.read_file(path)
    assert "damaged" in caplog.text
    assert isinstance(again.of("my/net", 8), tuple)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "fbnetv3_a"}, "network 'fbnetv3_a' has no arguments to search"),
        ({"network": "my/net?widths=[4,6]"}, "widths is among the arguments and in the name"),
        ({"network": "my/net?bias"}, "KEY=VALUE"),
        ({"arguments": {"width": {"range": [1, 2]}}}, "width: 1: network my/net has no such"),
        ({"arguments": [3]}, "must be a mapping"),
        ({"arguments": {"act": {"choices": ["a.pth", "relu/x"]}}}, "act: 'a.pth': not allowed"),
        ({"arguments": {"groups": {"choices": [5, 7]}}}, "none of 32 networks of the space"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": {"choices": [0, 8]}}, "resolution=0"),
        ({"rows": []}, "no key 'rows'"),
    ],
)
def test_a_space_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError) as error:
        _space(**changes)
    assert message in str(error.value)


def test_latency_tables_are_for_fbnets() -> None:
    table = LatencyTable.__new__(LatencyTable)
    with pytest.raises(SearchError, match=r"SEARCH\.LATENCY_TABLE has the latencies of FBNets"):
        _space().statistics(10, table)


def test_spaces_of_each_kind_are_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(open_space("nano", {}, "fbnetv3_a", 224), FBNetSpace)
    monkeypatch.setitem(SPACES._entries, "my_space", lambda: TABLE)
    space = open_space("my_space", {"act": "silu"}, "", 8)
    assert isinstance(space, NetworkSpace)
    assert space.space["act"].size == 1
    monkeypatch.setitem(SPACES._entries, "finished", lambda: space)
    assert open_space("finished", {}, "", 8) is space
    message = r"SEARCH\.FIX fixes act, x of the space finished, .* a finished NetworkSpace; give"
    with pytest.raises(SearchError, match=message):
        open_space("finished", {"act": "silu", "x": 1}, "", 8)
    path = tmp_path / "space.yaml"
    path.write_text("arguments: {act: {choices: [relu, silu]}}\n")
    named = open_space(str(path), {}, "my/net?bias=true", 8)
    assert named.digest != open_space(str(path), {}, "my/net", 8).digest
    with pytest.raises(SearchError, match=r"space\.yaml: space: network 'fbnetv3_a' has no"):
        open_space(str(path), {}, "fbnetv3_a", 8)


@pytest.mark.parametrize("name", ["timm_resnet", "timm_vit"])
def test_the_packaged_spaces_have_networks(name: str) -> None:
    space = open_space(name, {}, "", 32)
    macs = space.statistics(10)(space.probes())["macs"]
    assert 3e5 < macs[0] < 2e7


@pytest.mark.parametrize(
    ("line", "name"),
    [("name: other", "other"), ("", "mine"), ("name:", "mine"), ("name: ''", "mine")],
)
def test_a_space_without_a_name_has_that_of_its_file(tmp_path: Path, line: str, name: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{line}\nrecipe: {json.dumps(RECIPE)}\n")
    space = open_space(str(path), {}, "", 8)
    assert space.size_lines()[0].startswith(f"space {name}: 1 variables")
    assert space.digest == FBNetSpace({"recipe": RECIPE}).digest


def test_a_space_without_a_name_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACES._entries, "nameless", lambda: {"recipe": RECIPE})
    assert open_space("nameless", {}, "", 8).name == "nameless"
    assert FBNetSpace({"recipe": RECIPE}).size_lines()[0].startswith("space unnamed: ")
