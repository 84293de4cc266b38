"""Model cards: the text of README.md in a repository of Hugging Face's hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from fbnetv3.arch import Arch, count_cost
from fbnetv3.weights.detector_records import DetectorRecord
from fbnetv3.weights.records import Metric, WeightRecord

CLASSIFICATION, DETECTION = "image-classification", "object-detection"
# Identifiers of licences that the hub knows; cards give all others as "other".
_HUB_LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0"),
        *("cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0"),
    )
)
# score -> name of the score in the card, and type of the metric on the hub
_METRICS = {
    "top1": ("top-1 accuracy", "accuracy"),
    "top5": ("top-5 accuracy", "accuracy"),
    "mAP": ("mAP", "mean_average_precision"),
    "AP": ("AP", "mean_average_precision"),
    "AP50": ("AP50", "mean_average_precision"),
}
_PLACE = "OWNER/NAME"  # stands for a repository that is not known yet, in the examples of a card


@dataclass(frozen=True)
class CardFacts:
    """The content of a model card.

    Attributes:
        title: Heading of the card.
        task: ``CLASSIFICATION`` or ``DETECTION``.
        licence: Licence of the weights, such as ``Apache-2.0``.
        classes: Number of classes.
        preprocessing: Values of the preprocessing by name; empty: the model resizes images itself.
        metrics: Figures in percent by the name of the score, each measured or quoted.
        dataset: Data set of the figures; None: unknown.
        arch: Architecture of an FBNet, whose costs the card states; None for other networks.
        training: Command that trained the weights, or a sentence; "": unknown.
        note: Further remarks.
        repository: ``OWNER/NAME`` on the hub; None: not known yet.
    """

    title: str
    task: str
    licence: str
    classes: int
    preprocessing: Mapping[str, Any]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    dataset: str | None = None
    arch: Arch | None = None
    training: str = ""
    note: str = ""
    repository: str | None = None


def facts_of_record(record: WeightRecord) -> CardFacts:
    """Returns the content of the card of a classifier of the zoo."""
    keys = ("resolution", "resize", "interpolation", "mean", "std")
    return CardFacts(
        title=record.full_name,
        task=CLASSIFICATION,
        licence=record.licence,
        classes=record.num_classes,
        preprocessing={key: getattr(record, key) for key in keys},
        metrics=record.metrics,
        dataset=record.dataset,
        arch=record.arch(),
        training=f"The recipe of the authors: {record.recipe}" if record.recipe else "",
        note=record.note,
    )


def facts_of_detector(record: DetectorRecord, classes: int) -> CardFacts:
    """Returns the content of the card of a detector of the zoo with this number of classes."""
    facts = CardFacts(record.name, DETECTION, record.licence, classes, {}, record.metrics)
    return CardFacts(**{**vars(facts), "dataset": record.dataset, "note": record.note})


def card_text(facts: CardFacts) -> str:
    """Returns the text of a README.md: metadata of the hub as yaml, then Markdown."""
    head = yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True)
    parts = (f"---\n{head}---", f"# {facts.title}", *_sections(facts))
    return "\n\n".join(parts) + "\n"


def _metadata(facts: CardFacts) -> dict[str, Any]:
    licence = facts.licence.lower().replace(" ", "-")
    known = licence in _HUB_LICENCES
    values: dict[str, Any] = {"license": licence if known else "other"}
    if not known:
        values["license_name"] = facts.licence
    values |= {"library_name": "fbnetv3", "pipeline_tag": facts.task, "tags": ["fbnetv3", "fbnet"]}
    results = [
        {"type": _METRICS[name][1], "name": _METRICS[name][0], "value": round(metric.value, 2)}
        for name, metric in facts.metrics.items()
        if name in _METRICS
    ]
    if results and facts.dataset:
        result = {
            "task": {"type": facts.task},
            "dataset": {"name": facts.dataset, "type": facts.dataset},
            "metrics": results,
        }
        values["model-index"] = [{"name": facts.title, "results": [result]}]
    return values


def _sections(facts: CardFacts) -> Iterator[str]:
    kind = "Object detector" if facts.task == DETECTION else "Image classifier"
    yield f"{kind} for {facts.classes} classes, written by fbnetv3. Licence: {facts.licence}."
    if facts.note:
        yield f"{facts.note}."
    yield f"## Load\n\n{_usage(facts)}"
    if facts.metrics:
        rows = [
            (_METRICS.get(name, (name,))[0], f"{metric.value:.2f}%", metric.source, metric.note)
            for name, metric in facts.metrics.items()
        ]
        where = f" on `{facts.dataset}`" if facts.dataset else ""
        yield f"## Scores{where}\n\n{_table(('score', 'value', 'source', 'how'), rows)}"
    if facts.arch is not None:
        cost = count_cost(facts.arch)
        side, macs, params = facts.arch.resolution, cost.macs / 1e6, cost.params / 1e6
        yield f"## Network\n\n{macs:.1f}M multiply-adds at {side} pixels, {params:.2f}M parameters."
    yield f"## Preprocessing\n\n{_preprocessing(facts)}"
    if facts.training:
        yield f"## Training\n\n{facts.training}"


def _usage(facts: CardFacts) -> str:
    place = facts.repository or _PLACE
    install = "pip install 'fbnetv3[hub]'"
    if facts.task == DETECTION:
        install = "pip install 'fbnetv3[hub,detection]' && fbnetv3-install-detectron2"
        use = (
            f'model = fbnetv3.build_model("hf://{place}", pretrained=True)\n'
            'model.detect("photo.jpg", threshold=0.5)'
        )
        return f"```\n{install}\n```\n\n```python\nimport fbnetv3\n\n{use}\n```"
    use = (
        "import fbnetv3\nfrom fbnetv3.zoo.hub import HubClassifier\n\n"
        f'model = fbnetv3.build_model("hf://{place}", pretrained=True)     # the network\n'
        f'classifier = HubClassifier.from_pretrained("{place}").classifier()\n'
        'classifier.top("photo.jpg")                                      # names, probabilities'
    )
    return f"```\n{install}\n```\n\n```python\n{use}\n```"


def _preprocessing(facts: CardFacts) -> str:
    values = facts.preprocessing
    if not values:
        return "The model resizes and normalises images of any size itself."
    return (
        f"The shorter side is resized to {values['resize']} pixels ({values['interpolation']}), "
        f"the centre of {values['resolution']} x {values['resolution']} pixels is cropped, and RGB "
        f"values in 0..1 are normalised with mean {list(values['mean'])} and standard deviation "
        f"{list(values['std'])}."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
