"""Untrusted COCO JSON, pickles, addresses of weights, and files of detectors."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fbnetv3.config import CfgNode, get_cfg
from fbnetv3.data import DataError
from fbnetv3.detection.build import build_detector
from fbnetv3.detection.coco import read_coco
from fbnetv3.detection.detector import detector_from_file
from fbnetv3.detection.images import check_images
from fbnetv3.detection.resnet_weights import read_pickled_arrays
from fbnetv3.detection.weights import load_detector_weights
from fbnetv3.resources import find_config
from fbnetv3.weights.errors import DownloadError, WeightsFileError
from tests.data.test_untrusted import EPS, png


def _coco(folder: Path, file_name: str, side: int = 8) -> Path:
    image = {"id": 1, "file_name": file_name, "width": side, "height": side}
    tree: dict[str, Any] = {"images": [image], "annotations": []}
    tree["categories"] = [{"id": 1, "name": "x"}]
    (folder / "images").mkdir()
    (folder / "x.json").write_text(json.dumps(tree))
    return folder / "x.json"


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "a/..", "//etc/passwd"]
)
def test_file_names_outside_of_the_image_folder_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    json_file = _coco(tmp_path, name)
    with pytest.raises(DataError, match="outside of the image folder") as caught:
        read_coco("custom", json_file, tmp_path / "images")
    assert name in str(caught.value)
    assert str(json_file) in str(caught.value)


@pytest.mark.parametrize("name", ["a/b.png", "a..png", "..a/b.png"])
def test_file_names_in_subfolders_are_accepted(name: str, tmp_path: Path) -> None:
    dataset = read_coco("custom", _coco(tmp_path, name), tmp_path / "images")
    assert dataset.records[0]["file_name"] == str(tmp_path / "images" / name)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize(
    ("content", "message"), [(png(60_000), "60000|too large"), (EPS, "not an image file of BMP")]
)
def test_images_are_checked_before_detectron2_reads_them(
    content: bytes, message: str, decode: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    dataset = read_coco("custom", _coco(tmp_path, "1.png", 60_000), tmp_path / "images")
    (tmp_path / "images" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"1\.png.*({message})"):
        check_images(dataset, decode=decode, skip_broken=False)


# --- weights ---


class _Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


Built = tuple[nn.Module, CfgNode]


@pytest.fixture(scope="module")
def resnet_detector() -> Built:
    cfg = get_cfg()
    cfg.merge_from_file(str(find_config("detection/retinanet_R_50_FPN_3x.yaml")))
    cfg.merge_from_list(["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64])
    cfg.freeze()
    return build_detector(cfg, ["a"], torch.device("cpu"))


def test_code_in_pickles_is_not_run(resnet_detector: Built, tmp_path: Path) -> None:
    model, full = resnet_detector
    touched, path = tmp_path / "touched", tmp_path / "R.pkl"
    path.write_bytes(pickle.dumps({"model": {"w": _Calls(open, str(touched), "w")}}))
    with pytest.raises(WeightsFileError, match="never loaded"):
        load_detector_weights(model, str(path), full)
    assert not touched.exists()
    pickle.loads(path.read_bytes())["model"]["w"].close()
    assert touched.exists()  # pickle itself does run the code


def _with_forged_dtype() -> bytes:
    """Returns a pickled array of objects, whose dtype claims that it has no objects.

    numpy's unpickling trusts the flags of the file, and would use the bytes as addresses.
    """
    dtype = np.dtype([("x", "O")])
    function, arguments, state = dtype.__reduce__()
    forged = _WithState(function, arguments, (*state[:-1], 0))
    array = (1, (1,), forged, False, b"A" * 8)
    start = (np.ndarray, (0,), b"b")
    return pickle.dumps({"model": {"w": _WithState(_reconstruct(), start, array)}}, protocol=2)


def _reconstruct() -> Callable[..., Any]:
    return np.zeros(1).__reduce__()[0]  # type: ignore[return-value]


class _WithState:
    def __init__(self, function: Any, arguments: Any, state: Any) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def _dict_in_itself() -> bytes:
    tree: dict[str, Any] = {}
    tree["model"] = tree
    return pickle.dumps(tree)


@pytest.mark.parametrize(
    "content",
    [
        _with_forged_dtype(),
        pickle.dumps({"w": np.array([{}], dtype=object)}, protocol=2),
        pickle.dumps({"w": np.array(["text"])}, protocol=2),
        pickle.dumps({"w": _WithState(_reconstruct(), (np.ndarray, (0,), b"b"), 5)}, protocol=2),
        pickle.dumps({"w": _Calls(_reconstruct(), np.ndarray, (1 << 60,), b"d")}, protocol=2),
        pickle.dumps({"w": _Calls(np.dtype, "O")}, protocol=2),
        _dict_in_itself(),
        b"not a pickle",
        b"",
    ],
)
def test_pickles_of_other_things_than_numbers_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "R.pkl").write_bytes(content)
    with pytest.raises(WeightsFileError, match=r"R\.pkl"):
        read_pickled_arrays(tmp_path / "R.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_numbers_are_read(protocol: int, tmp_path: Path) -> None:
    base = np.arange(12.0).reshape(3, 4)
    arrays: dict[str, Any] = OrderedDict(
        plain=base.astype("float32"),
        columns=np.asfortranarray(base),
        swapped=base.astype(">f4"),
        part=base[:, ::2],
        whole=np.arange(3),
        flags=np.array([True, False]),
        empty=np.zeros((0, 2), "float32"),
    )
    tree = {"model": arrays, "__author__": "x", "number": np.float32(2)}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(tree, protocol=protocol))
    tensors, _ = read_pickled_arrays(tmp_path / "R.pkl")
    assert set(tensors) == set(arrays)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), arrays[name])
        tensor.add(1)  # torch could not compute with another byte order


def test_arrays_of_python_2_are_read(tmp_path: Path) -> None:
    """Python 2 pickled bytes as strings; the opcodes of such a file are written by hand."""
    array = np.array([1.5, -2.0, 3e30], dtype="<f4")
    out = io.BytesIO()
    out.write(b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n")
    out.write(
        b"K\x00\x85U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<"
    )
    out.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c" + array.tobytes() + b"tbs.")
    pickletools.dis(out.getvalue(), io.StringIO())
    (tmp_path / "R.pkl").write_bytes(out.getvalue())
    np.testing.assert_array_equal(read_pickled_arrays(tmp_path / "R.pkl")[0]["w"].numpy(), array)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9/../../../../up.pkl",
        "https://127.0.0.1:9/R-50.pkl",
        "ftp://127.0.0.1:9/R-50.pkl",
        "file:///etc/passwd",
        "detectron2://../../../up.pkl",
        "detectron2://a/../../up.pkl",
    ],
)
def test_other_addresses_are_not_downloaded(
    uri: str, resnet_detector: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[str] = []
    manager = "detectron2.utils.file_io.PathManager.get_local_path"
    monkeypatch.setattr(manager, lambda path: downloads.append(path))
    model, full = resnet_detector
    with pytest.raises(DownloadError, match="may not be downloaded; allowed: zoo://NAME"):
        load_detector_weights(model, uri, full)
    assert not downloads


@pytest.mark.parametrize(
    "metadata",
    [
        {"task": "detection"},
        {"task": "detection", "config": "{}", "classes": '["a"]'},
        {"task": "detection", "config": '{"MODEL": {}, "INPUT": 5, "TEST": {}}', "classes": "[]"},
        {"task": "detection", "config": '{"MODEL": {}, "INPUT": {}, "TEST": {}}', "classes": "5"},
    ],
)
def test_a_detector_with_incomplete_metadata(metadata: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata)
    with pytest.raises(WeightsFileError, match=r"metadata of .*x\.safetensors lack MODEL"):
        detector_from_file(path)


def test_only_the_network_is_read_from_the_config_of_a_detector(
    resnet_detector: Built, tmp_path: Path
) -> None:
    model, full = resnet_detector
    config = {key: full[key] for key in ("MODEL", "INPUT", "TEST")}
    config = json.loads(json.dumps(config)) | {"OUTPUT_DIR": str(tmp_path / "elsewhere")}
    path = tmp_path / "x.safetensors"
    metadata = {"task": "detection", "config": json.dumps(config), "classes": '["a"]'}
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path, metadata)
    assert detector_from_file(path).classes == ("a",)
    assert not (tmp_path / "elsewhere").exists()
