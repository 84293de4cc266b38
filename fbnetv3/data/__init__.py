"""Data sets, transforms and loaders for image classification.

To add a data set, see ``datasets.py``; ``digits.py`` is an example of one in a file of its own.
"""

from __future__ import annotations

from fbnetv3.data.dataset import ArrayDataset, FileDataset, ImageDataset, Subset, check_same_classes
from fbnetv3.data.datasets import build_dataset, list_datasets
from fbnetv3.data.decode import ImageLike, read_image
from fbnetv3.data.errors import DataError
from fbnetv3.data.hugging_face import HuggingFaceDataset
from fbnetv3.data.loaders import EvalLoader, LoaderOptions, TrainLoader
from fbnetv3.data.mixup import Mixup
from fbnetv3.data.own import MapDataset, as_image_dataset
from fbnetv3.data.scan import find_broken, refuse_broken, without_broken
from fbnetv3.data.seeding import keyed_generator, mix_seed
from fbnetv3.data.streams import ImageStream
from fbnetv3.data.transforms import EvalTransform, ImageTransform, Normalize, TrainTransform
from fbnetv3.registries import register_dataset

__all__ = [
    "ArrayDataset",
    "DataError",
    "EvalLoader",
    "EvalTransform",
    "FileDataset",
    "HuggingFaceDataset",
    "ImageDataset",
    "ImageLike",
    "ImageStream",
    "ImageTransform",
    "LoaderOptions",
    "MapDataset",
    "Mixup",
    "Normalize",
    "Subset",
    "TrainLoader",
    "TrainTransform",
    "as_image_dataset",
    "build_dataset",
    "check_same_classes",
    "find_broken",
    "keyed_generator",
    "list_datasets",
    "mix_seed",
    "read_image",
    "refuse_broken",
    "register_dataset",
    "without_broken",
]
