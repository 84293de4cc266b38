"""Data sets for image classification, opened by Hugging Face's package ``datasets``.

A config refers to a split by ``hf://NAME?split=train``, where NAME is a data set of the hub, or a
folder that ``save_to_disk`` has written. Further options are ``config`` (name of a configuration),
and ``image`` and ``label`` (names of columns).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from fbnetv3.data.dataset import CACHE_BYTES, FileDataset
from fbnetv3.data.decode import read_image_file
from fbnetv3.data.errors import DataError, some
from fbnetv3.data.sources import Source
from fbnetv3.requires import require

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf://"
_OPTIONS = ("split", "config", "image", "label")
_FORM = "write hf://NAME?split=train"


class HuggingFaceDataset(FileDataset):
    """The images and classes of a split as a data set of this project.

    Files are read by this project's rules (``fbnetv3.data.read_image``).

    Args:
        dataset: Split of a data set (``datasets.Dataset``), with a column of images, and one of
            classes of the type ``ClassLabel``.
        name: Name of the data set in error messages and logs.
        image: Column of the images; "" stands for the only one of the type ``Image``.
        label: Column of the classes; "" stands for the only one of the type ``ClassLabel``.
        cache_bytes: Largest size of the cache of decoded images per process, in bytes; 0 disables
            it.

    Raises:
        DataError: ``dataset`` is not a single split with rows, a column is missing, ambiguous or of
            another type, or an image has no class.
        MissingPackageError: ``datasets`` is not installed.
        BrokenPackageError: Importing ``datasets`` fails.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str = "hugging face",
        image: str = "",
        label: str = "",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        datasets = require("datasets", "huggingface")
        _check_split(dataset, name, datasets)
        image = _column(dataset, name, "image", image, datasets.Image)
        label = _column(dataset, name, "label", label, datasets.ClassLabel)
        source = _Rows(dataset.cast_column(image, datasets.Image(decode=False)), name, image, label)
        super().__init__(name, source, cache_bytes)


class _Rows(Source):
    """The image files in the rows of a split."""

    def __init__(self, rows: Dataset, name: str, image: str, label: str) -> None:
        targets = [-1 if target is None else int(target) for target in rows[label]]
        missing = [i for i, target in enumerate(targets) if target < 0]
        if missing:
            raise DataError(
                f"{name}: {len(missing)} images have no class, such as row {missing[0]}; use "
                "another split, or filter these rows out"
            )
        files = [f"{i:08}" for i in range(len(targets))]
        super().__init__(Path(name), rows.features[label].names, files, targets)
        self._rows, self._image, self._name = rows.select_columns([image]), image, name

    def read(self, i: int) -> bytes:
        cell = self._rows[i][self._image] or {}
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        path = cell.get("path")
        if not path:
            raise DataError(f"{self.file_name(i)}: the row has no image; filter it out")
        try:
            return read_image_file(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{self.file_name(i)}: cannot read {path} ({reason})") from error

    def file_name(self, i: int) -> str:
        return f"{self._name} row {i}"


def open_hugging_face(address: str, folder: Path | None = None) -> HuggingFaceDataset:
    """Opens ``hf://NAME?split=SPLIT``, with further options ``config``, ``image`` and ``label``.

    Args:
        address: Address of a split.
        folder: Existing folder NAME that ``save_to_disk`` has written, for which ``config`` has no
            effect; None stands for the hub.

    Raises:
        DataError: The address is malformed, the split cannot be opened, or
            :class:`HuggingFaceDataset` refuses it.
        MissingPackageError: ``datasets`` is not installed.
        BrokenPackageError: Importing ``datasets`` fails.
    """
    name, options = parse_address(address)
    datasets = require("datasets", "huggingface")
    split = options.get("split")
    try:
        if folder is None:
            opened = datasets.load_dataset(name, options.get("config"), split=split)
        else:
            opened = datasets.load_from_disk(str(folder))
            opened = opened[split] if split and isinstance(opened, dict) else opened
    except Exception as error:  # the package raises errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{address}: cannot open the data set ({reason}); {_FORM}") from error
    image, label = options.get("image", ""), options.get("label", "")
    return HuggingFaceDataset(opened, address, image=image, label=label)


def parse_address(address: str) -> tuple[str, dict[str, str]]:
    """Returns the name and the options of an address ``hf://NAME?KEY=VALUE&...``.

    Raises:
        DataError: There is no name, or an option is unknown.
    """
    name, _, query = address.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [key for key in options if key not in _OPTIONS]
    if not name or unknown:
        problem = f"option {unknown[0]!r} is unknown" if unknown else "there is no name"
        raise DataError(f"{address}: {problem}; {_FORM}, with options {', '.join(_OPTIONS)}")
    return unquote(name), options


def _check_split(dataset: Any, name: str, datasets: Any) -> None:
    if isinstance(dataset, dict):
        splits = ", ".join(map(str, dataset))
        raise DataError(f"{name}: give one of its splits: {splits}; in a config, {_FORM}")
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(
            f"{name}: a {type(dataset).__name__} has no random access; allowed: datasets.Dataset"
        )
    if not len(dataset):
        raise DataError(f"{name}: the split has no rows")


def _column(dataset: Any, name: str, kind: str, column: str, feature: Any) -> str:
    """Returns ``column``, or the only column of the type ``feature`` if ``column`` is empty."""
    of_type = [key for key, value in dataset.features.items() if isinstance(value, feature)]
    if column in of_type:
        return column
    if not column and len(of_type) == 1:
        return of_type[0]
    advice = f"; its columns are {some(list(dataset.features), 20)}"
    if of_type:
        advice = f"; choose one by {kind}=: {some(of_type, 20)}"
    elif kind == "label":
        advice += "; turn a column into classes with class_encode_column"
    wrong = f"column {column!r} is not" if column else f"{len(of_type)} columns are"
    raise DataError(f"{name}: {wrong} of the type {feature.__name__}{advice}")
