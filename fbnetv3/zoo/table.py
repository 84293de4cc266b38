"""The text of MODEL_ZOO.md, made from the records and the architectures."""

from __future__ import annotations

from collections.abc import Iterable

from fbnetv3.arch import Arch, count_cost, get_arch, list_archs
from fbnetv3.weights.detector_records import DetectorRecord, detector_records
from fbnetv3.weights.records import WeightRecord, all_records

_HEAD = """# Model zoo

Written by `python tools/zoo.py table` from `fbnetv3/weights/records/*.yaml` and the architecture
tables; do not edit. `python tools/zoo.py verify` checks costs, hashes and, where the data set lies
below `FBNETV3_DATA`, accuracies.

MACs are multiply-adds of convolutions and linear layers, plus one for each element that a global
average pool reads, at the given resolution. Params are all parameters. Accuracies are on the
ImageNet validation set unless the tag names another data set: *quoted* from the authors of the
weights, or *measured* with this repository.

## Architectures

`fbnetv3_nano_*` were found by this project's search (projects/cifar10_jointnas); the others are
published. EfficientNet-B0, MobileNetV3 and MobileNetV4 are those of timm.
"""

_PAPER = """
## Paper and released models

MACs in Table 3 of the FBNetV3 paper (which calls them FLOPs) and of the released models. They
differ a little because the released models round channels to multiples of 8, for latency.

| model | paper | released |
|---|---|---|
"""

_WEIGHTS = """
## Weights

`fbnetv3.build_model("NAME.TAG", pretrained=True)`, or `MODEL.WEIGHTS zoo://NAME.TAG` in training.
Where the sha256 is not known, the first download pins it, and later uses are checked against it.
The licence is that of the weights, not of this repository. Images are resized (bicubically for
EfficientNet and MobileNet, bilinearly for the others), cropped at the centre, and normalised with
the mean and standard deviation of ImageNet, or of CIFAR-10 for the tag `cifar10`. The aligned form
of a network has paddings of k // 2, as in timm; the low-resolution form has smaller strides, for
images of 32 pixels.
`fb_in1k`: figures quoted from the FBNet zoo (mobile-vision). Other tags that end with `_in1k`:
trained by timm; figures quoted from timm's results-imagenet.csv.

"""

_DETECTORS = """
## Detectors

`fbnetv3.build_model("NAME.TAG", pretrained=True)` returns a detector for images of any size;
`tools/predict.py` draws its boxes. AP is COCO's, on the given data set.

"""

_FAMILIES = ("fbnet*", "efficientnet*", "mobilenet*")

# MACs in the paper's Table 3
_PAPER_MACS = {"fbnetv3_a": "343M", "fbnetv3_c": "544M", "fbnetv3_e": "752M", "fbnetv3_g": "2.0G"}


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def _table(head: list[str], rows: Iterable[Iterable[object]]) -> str:
    return _row(head) + "|" + "---|" * len(head) + "\n" + "".join(map(_row, rows))


def _macs(arch: Arch) -> str:
    return f"{count_cost(arch).macs / 1e6:.1f}M"


def _arch_row(name: str) -> list[object]:
    arch = get_arch(name)
    cost = count_cost(arch)
    return [f"`{name}`", _macs(arch), f"{cost.params / 1e6:.2f}M", arch.resolution]


def _metric(record: WeightRecord, key: str) -> str:
    metric = record.metrics.get(key)
    return f"{metric.value:.2f} ({metric.source})" if metric else "–"


def _weight_row(record: WeightRecord) -> list[object]:
    arch = record.arch()
    notes = "; ".join(metric.note for metric in record.metrics.values() if metric.note)
    variant = f"{record.variant.replace('_', '-')} form. " if record.variant else ""
    recipe = f"[recipe]({record.recipe})" if record.recipe else ""
    return [
        f"`{record.full_name}`",
        _macs(arch),
        f"{count_cost(arch).params / 1e6:.2f}M",
        f"{record.resize} → {record.resolution}",
        _metric(record, "top1"),
        _metric(record, "top5"),
        record.sha256[:8] if record.sha256 else "not known",
        f"[file]({record.url})" if record.url else "packaged",
        record.licence,
        " ".join(part for part in (f"{variant}{record.note}".strip(), notes, recipe) if part),
    ]


def _detector_row(record: DetectorRecord, scores: Iterable[str]) -> list[object]:
    values = [f"{record.metrics[s].value:.2f} ({record.metrics[s].source})" for s in scores]
    head = [f"`{record.name}`", f"`{record.dataset}`"]
    return [*head, *values, record.sha256[:8], record.licence, record.note]


def model_zoo_table() -> str:
    """Returns the text of MODEL_ZOO.md."""
    names = [name for pattern in _FAMILIES for name in list_archs(pattern)]
    archs = _table(["name", "MACs", "params", "resolution"], map(_arch_row, names))
    paper = "".join(_row([f"`{n}`", m, _macs(get_arch(n))]) for n, m in _PAPER_MACS.items())
    columns = ["weights", "MACs", "params", "resize → crop", "top-1", "top-5", "sha256", "where"]
    weights = _table([*columns, "licence", "note"], map(_weight_row, all_records()))
    scores = ["AP", "AP50"]
    head = ["detector", "data set", *scores, "sha256", "licence", "note"]
    detectors = _table(head, (_detector_row(r, scores) for r in detector_records()))
    return f"{_HEAD}\n{archs}{_PAPER}{paper}{_WEIGHTS}{weights}{_DETECTORS}{detectors}"
