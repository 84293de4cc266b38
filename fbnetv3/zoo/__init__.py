"""The zoo: models by name, with their weights, their preprocessing and their verification."""

from __future__ import annotations

from fbnetv3.weights.converters import LoadSummary, load_state_dict
from fbnetv3.weights.download import cache_dir, fetch
from fbnetv3.weights.errors import DownloadError, LoadError, RecordError, WeightsFileError, ZooError
from fbnetv3.weights.files import read_tensors
from fbnetv3.weights.load import load_weights
from fbnetv3.weights.records import Metric, WeightRecord, all_records, find_record
from fbnetv3.zoo.api import build_model, get, list_models
from fbnetv3.zoo.preprocess import Preprocessing, preprocessing, transform
from fbnetv3.zoo.verification import VerifyRow, verify

__all__ = [
    "DownloadError",
    "LoadError",
    "LoadSummary",
    "Metric",
    "Preprocessing",
    "RecordError",
    "VerifyRow",
    "WeightRecord",
    "WeightsFileError",
    "ZooError",
    "all_records",
    "build_model",
    "cache_dir",
    "fetch",
    "find_record",
    "get",
    "list_models",
    "load_state_dict",
    "load_weights",
    "preprocessing",
    "read_tensors",
    "transform",
    "verify",
]
