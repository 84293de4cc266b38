"""Model cards say what the records of the zoo say."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fbnetv3.weights.detector_records import detector_records, find_detector
from fbnetv3.weights.records import all_records, find_record
from fbnetv3.zoo.cards import CardFacts, card_text, facts_of_detector, facts_of_record


def _parts(facts: CardFacts) -> tuple[dict[str, Any], str]:
    _, head, text = card_text(facts).split("---\n", 2)
    return yaml.safe_load(head), text


@pytest.mark.parametrize("record", all_records(), ids=lambda record: record.full_name)
def test_a_card_of_each_record(record: Any) -> None:
    head, text = _parts(facts_of_record(record))
    assert head["library_name"] == "fbnetv3"
    assert head["pipeline_tag"] == "image-classification"
    assert f"Licence: {record.licence}." in text
    for metric in record.metrics.values():
        assert f"{metric.value:.2f}% | {metric.source}" in text
    assert f"resized to {record.resize} pixels ({record.interpolation})" in text
    assert record.recipe is None or record.recipe in text
    assert 'fbnetv3.build_model("hf://OWNER/NAME", pretrained=True)' in text


@pytest.mark.parametrize(
    ("name", "licence", "source"),
    [
        ("fbnetv3_a.fb_in1k", "cc-by-nc-4.0", "quoted"),
        ("fbnetv3_a0.cifar10", "apache-2.0", "measured"),
    ],
)
def test_licence_and_source(name: str, licence: str, source: str) -> None:
    head, text = _parts(facts_of_record(find_record(name)))
    assert head["license"] == licence
    assert f"| {source} |" in text
    assert "license_name" not in head


def test_another_licence_is_named() -> None:
    facts = CardFacts("net", "image-classification", "My Licence 1.0", 2, {})
    head, text = _parts(facts)
    assert head["license"] == "other"
    assert head["license_name"] == "My Licence 1.0"
    assert "model-index" not in head
    assert "## Scores" not in text


def test_the_results_of_the_hub() -> None:
    head, _ = _parts(facts_of_record(find_record("fbnetv3_a0.cifar10")))
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "cifar10_test"
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1 accuracy", "value": 88.89}]


def test_a_detector() -> None:
    record = find_detector(detector_records()[0].name)
    head, text = _parts(facts_of_detector(record, classes=3))
    assert head["pipeline_tag"] == "object-detection"
    assert "| AP | " in text
    assert "fbnetv3-install-detectron2" in text
    assert "resizes and normalises images of any size itself" in text
