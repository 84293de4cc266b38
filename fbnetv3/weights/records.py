"""Weight records: address, preprocessing, accuracy and licence of each set of weights.

The records are data in ``records/*.yaml``, one file per source. The ``defaults`` of a file apply to
its entries that do not set these fields themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from fbnetv3 import imagenet
from fbnetv3.arch import Arch, get_arch, scaling
from fbnetv3.errors import did_you_mean
from fbnetv3.plain_yaml import parse_mapping
from fbnetv3.weights.errors import RecordError

LAYOUTS = ("fbnet", "timm", "fbnetv3", "plain")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
METRIC_SOURCES = ("measured", "quoted")
IMAGENET_CLASSES = ("imagenet",)  # stands for the names of ImageNet's classes
# in the order in which find_record searches for a name without a tag
RECORD_FILES = ("fbnet_published.yaml", "timm.yaml", "own.yaml")


@dataclass(frozen=True)
class Metric:
    """A figure with its source.

    Attributes:
        value: Value in percent.
        source: ``"measured"`` with this repository, or ``"quoted"`` from the weights' authors.
        note: How the value was obtained, such as the command.
    """

    value: float
    source: str
    note: str = ""


@dataclass(frozen=True)
class WeightRecord:
    """One set of weights. Its full name is ``NAME.TAG``.

    Attributes:
        name: Name of an architecture.
        tag: Name of the weights, such as ``"fb_in1k"``.
        layout: Project whose tensor names the file has: ``"fbnet"`` (the published files),
            ``"timm"`` or ``"fbnetv3"``; or ``"plain"``: the names in the state dict of a model that
            is no FBNet.
        resolution: Side in pixels of the centre crop that is the network's input.
        resize: Length in pixels to which the shorter side of an image is resized before the crop.
        licence: Licence of the weights.
        url: Address of the file; None for a packaged file.
        path: Path of a packaged file, relative to ``model_zoo/weights``; None for a file with a
            ``url``.
        sha256: Hash of the file, 64 hexadecimal digits; None if it is not known in advance. The
            hash of the first download is then pinned (see download.py).
        size: Size of the file in bytes; None if it is unknown.
        variant: Variant of the architecture: ``"aligned"``, ``"low_resolution"``, or None for the
            architecture itself.
        width: Factor of the architecture's channels.
        depth: Factor of the architecture's repeats.
        interpolation: One of ``INTERPOLATIONS``.
        mean: Mean of each channel, for images in 0..1.
        std: Standard deviation of each channel, for images in 0..1.
        num_classes: Number of classes of the classifier.
        classes: Names of the classes; ``("imagenet",)`` stands for those of ImageNet. None:
            unknown.
        several_labels: Whether an image may have several classes. The probability of each class is
            then a sigmoid of its logit instead of a softmax of all logits.
        dataset: Name of the data set of the metrics; None: unknown.
        metrics: Accuracies by name, such as ``{"top1": Metric(79.6, "quoted")}``.
        macs_m: Quoted multiply-adds in millions; None if none are quoted.
        conv_weights_m: Quoted number of elements of all conv weights (4-d tensors) in millions;
            None if none is quoted.
        recipe: Address of the recipe that the weights' authors publish; None: unknown.
        note: Further remarks.
        origin: Source of the record: ``"fbnet"``, ``"timm"`` or ``"own"``.

    Raises:
        RecordError: A value is not allowed, or not exactly one of ``url`` and ``path`` is given.
    """

    name: str
    tag: str
    layout: str
    resolution: int
    resize: int
    licence: str
    url: str | None = None
    path: str | None = None
    sha256: str | None = None
    size: int | None = None
    variant: str | None = None
    width: float = 1.0
    depth: float = 1.0
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = imagenet.MEAN
    std: tuple[float, float, float] = imagenet.STD
    num_classes: int = imagenet.NUM_CLASSES
    classes: tuple[str, ...] | None = None
    several_labels: bool = False
    dataset: str | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict, hash=False)
    macs_m: float | None = None
    conv_weights_m: float | None = None
    recipe: str | None = None
    note: str = ""
    origin: str = "own"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def full_name(self) -> str:
        """The name with the tag, ``NAME.TAG``."""
        return f"{self.name}.{self.tag}"

    @property
    def filename(self) -> str:
        """The name of the file in the cache."""
        suffix = Path(self.path or urlparse(self.url or "").path).suffix
        return f"{self.full_name}{suffix}"

    def arch(self) -> Arch:
        """Returns the architecture, with the resolution and number of classes of the weights."""
        arch = get_arch(self.name)
        if self.variant is not None:
            arch = scaling.VARIANTS[self.variant](arch, self.resolution)
        if (self.width, self.depth) != (1, 1):
            arch = scaling.scale(arch, self.width, self.depth)
        return arch.replace(resolution=self.resolution, num_classes=self.num_classes)

    @property
    def fits_architecture(self) -> bool:
        """Whether the weights fit the named architecture, unscaled and with all of its classes."""
        # the variant "aligned" has tensors of the same shapes
        is_unscaled = self.variant != "low_resolution" and (self.width, self.depth) == (1, 1)
        return is_unscaled and self.num_classes == get_arch(self.name).num_classes

    def class_names(self) -> tuple[str, ...] | None:
        """Returns the names of the classes in the order of the logits; None if unknown."""
        if self.classes == IMAGENET_CLASSES:
            from torchvision.models import ResNet50_Weights

            return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
        return self.classes


def _require(record: WeightRecord, key: str, allowed: Iterable[Any]) -> None:
    allowed = tuple(allowed)
    if getattr(record, key) not in allowed:
        raise RecordError(
            f"weight record {record.full_name}: {key} is {getattr(record, key)!r}; "
            f"allowed: {', '.join(map(str, allowed))}"
        )


def _check(record: WeightRecord) -> None:
    _require(record, "layout", LAYOUTS)
    _require(record, "interpolation", INTERPOLATIONS)
    _require(record, "variant", (None, *scaling.VARIANTS))
    _require(record, "several_labels", (False, True))
    problem = None
    if (record.url is None) == (record.path is None):
        problem = "needs either url or path"
    elif record.sha256 is not None and len(record.sha256) != 64:
        problem = f"sha256 must have 64 hexadecimal digits, not {record.sha256!r}"
    elif not 0 < record.resolution <= record.resize:
        problem = (
            "resolution must be above 0 and at most resize; they are "
            f"{record.resolution} and {record.resize}"
        )
    elif record.several_labels and "top1" in record.metrics:
        problem = "top1 is not a score of images with several labels; leave it out (--top1)"
    elif bad := [k for k, m in record.metrics.items() if m.source not in METRIC_SOURCES]:
        problem = f"metrics {bad} must have source {' or '.join(METRIC_SOURCES)}"
    if problem:
        raise RecordError(f"weight record {record.full_name}: {problem}")


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    """Converts lists to tuples, and a single class name to a tuple of one."""
    if isinstance(entry.get("classes"), str):
        entry["classes"] = [entry["classes"]]
    listed = {k: tuple(v) for k, v in entry.items() if isinstance(v, list)}
    return entry | listed


def record_from_dict(entry: Mapping[str, Any], where: str = "record") -> WeightRecord:
    """Makes a record from plain data.

    Args:
        entry: Fields of ``WeightRecord``; a metric is a dict of ``Metric``'s fields.
        where: Name of the file, for error messages.

    Raises:
        RecordError: A key is unknown or missing, or a value is not allowed.
    """
    known = [f.name for f in dataclasses.fields(WeightRecord)]
    for key in entry:
        if key not in known:
            raise RecordError(f"{where}: unknown key {key!r}{did_you_mean(key, known)}")
    values = _tuples(dict(entry))
    try:
        metrics = {k: Metric(**m) for k, m in values.pop("metrics", {}).items()}
        return WeightRecord(metrics=metrics, **values)
    except TypeError as error:
        name = entry.get("name", "?")
        raise RecordError(f"{where}: entry {name}: {error}") from error


def _read(filename: str) -> list[WeightRecord]:
    text = resources.files("fbnetv3.weights").joinpath("records", filename).read_text("utf-8")
    data = parse_mapping(text)
    base = {"origin": data["source"], **data["defaults"]}
    return [record_from_dict(base | entry, filename) for entry in data["weights"]]


@functools.cache
def all_records() -> tuple[WeightRecord, ...]:
    """Returns all records, in the order in which :func:`find_record` searches them."""
    return tuple(record for filename in RECORD_FILES for record in _read(filename))


def is_weights_name(name: str) -> bool:
    """Whether a name is ``NAME.TAG``, and not that of an architecture or of a yaml file."""
    return "." in name and "/" not in name and not name.endswith((".yaml", ".yml"))


def find_record(name: str) -> WeightRecord:
    """Returns the record of the weights with a name.

    Args:
        name: ``NAME.TAG``, or ``NAME`` for the first weights that fit this architecture.

    Raises:
        RecordError: There are no such weights; the message says which exist, or how to name a file.
    """
    base, _, tag = name.partition(".")
    records = [r for r in all_records() if r.name == base]
    for record in records:
        if record.tag == tag or (base == name and record.fits_architecture):
            return record
    if records:
        names = ", ".join(r.full_name for r in records)
        raise RecordError(f"no weights {name!r}; there are: {names}")
    if Path(name).exists():
        raise RecordError(
            f"no weights for {name!r}, which is a file or folder: give it as --weights, "
            "MODEL.WEIGHTS or in Python weights=, not as the name of a network"
        )
    known = sorted({r.name for r in all_records()})
    hint = did_you_mean(base, known) or f"; weights exist for: {', '.join(known)}"
    raise RecordError(f"no weights for {name!r}{hint}")
