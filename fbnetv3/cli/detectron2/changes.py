"""What detectron2 0.6 of 2021 needs to run with today's Python, numpy, Pillow and torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fbnetv3.errors import FBNetError


class InstallError(FBNetError):
    """detectron2 could not be downloaded, changed or installed."""


class Change(NamedTuple):
    """Text of one of detectron2's files to replace, found exactly as often as ``times`` says."""

    path: str
    old: str
    new: str
    times: int = 1


CHANGES = (
    # Pillow 10 removed LINEAR
    Change("data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    # numpy 1.24 removed its aliases of the builtins
    Change("data/build.py", "dtype=np.int\n", "dtype=int\n"),
    Change("data/build.py", "dtype=np.int)", "dtype=int)"),
    Change("data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)"),
    Change("evaluation/pascal_voc_evaluation.py", "astype(np.bool)", "astype(bool)", 2),
    Change("evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)", 2),
    Change("evaluation/sem_seg_evaluation.py", "dtype=np.float)", "dtype=float)", 2),
    Change("evaluation/sem_seg_evaluation.py", "astype(np.float)", "astype(float)", 3),
    Change("structures/masks.py", "astype(np.bool)", "astype(bool)", 2),
    Change("structures/masks.py", "dtype=np.bool)", "dtype=bool)"),
    Change("utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)"),
    Change("utils/visualizer.py", "astype(np.bool)", "astype(bool)", 3),
    # OpenCV is needed to draw masks alone: imported there
    Change("utils/visualizer.py", "import cv2\n", ""),
    Change(
        "utils/visualizer.py",
        "        mask = np.ascontiguousarray(mask)",
        "        import cv2\n\n        mask = np.ascontiguousarray(mask)",
    ),
    Change(
        "utils/visualizer.py",
        "            _num_cc, cc_labels",
        "            import cv2\n\n            _num_cc, cc_labels",
    ),
    # setuptools 82 has no pkg_resources
    Change("model_zoo/model_zoo.py", "import pkg_resources\n", "import importlib.resources\n"),
    Change(
        "model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )",
        "os.path.join(\n"
        '        str(importlib.resources.files("detectron2.model_zoo")), "configs", config_path\n'
        "    )",
    ),
    # torch says at each first use that these forms are deprecated
    Change(
        "modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
    ),
    Change(
        "engine/train_loop.py",
        "from torch.cuda.amp import GradScaler",
        "from torch.amp import GradScaler",
    ),
    Change(
        "engine/train_loop.py", "from torch.cuda.amp import autocast", "from torch import autocast"
    ),
    Change("engine/train_loop.py", "with autocast():", 'with autocast("cuda"):'),
)

EXTENSION_STUB = '''\
"""Stands for detectron2's C++ extension, which this installation does not have."""


def get_compiler_version():
    return "none: installed without the C++ extension"


def get_cuda_version():
    return "none: installed without the C++ extension"


def has_cuda():
    return False


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(
        f"detectron2._C.{name} is not there: detectron2 was installed without its C++ extension. "
        "Deformable convolutions, rotated boxes and the fast COCO evaluation need it "
        "(pass use_fast_impl=False to COCOEvaluator), or install upstream's: "
        "pip uninstall detectron2, then fbnetv3-install-detectron2 --from-git"
    )
'''


def changed_text(text: str, change: Change) -> str:
    """Returns ``text`` with the change made.

    Raises:
        InstallError: the text to replace is not found as often as expected.
    """
    found = text.count(change.old)
    if found != change.times:
        raise InstallError(
            f"detectron2/{change.path} has {change.old!r} {found} times, expected {change.times}; "
            f"it is not the version that the changes were written for, nothing was installed"
        )
    return text.replace(change.old, change.new)


def apply_changes(package: Path, changes: Iterable[Change] = CHANGES) -> None:
    """Makes the changes in the unpacked package and adds the stand-in for its C++ extension.

    Raises:
        InstallError: a file is missing, or is not what the changes were written for.
    """
    for change in changes:
        path = package / change.path
        if not path.is_file():
            raise InstallError(f"detectron2/{change.path} is missing; nothing was installed")
        text = path.read_text(encoding="utf-8")
        path.write_text(changed_text(text, change), encoding="utf-8")
    (package / "_C.py").write_text(EXTENSION_STUB, encoding="utf-8")
