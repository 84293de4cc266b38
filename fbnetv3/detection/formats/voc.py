"""Annotations of Pascal VOC: one XML file per image, and lists of the images of a split."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from xml.etree import ElementTree

from fbnetv3.data.errors import DataError
from fbnetv3.detection.formats.boxes import Box, BoxSet
from fbnetv3.detection.formats.xml import parse_xml
from fbnetv3.image_files import is_image, list_folder
from fbnetv3.io import read_text

_FOLDERS = ("JPEGImages", "images", "")  # where images may be, beside Annotations


def read_voc(path: Path, images: Path | None = None) -> BoxSet:
    """Reads the annotations in a folder, or only those of the images named in a list of a split.

    In the files, pixels are numbered from 1 and both ends belong to a box; the returned boxes have
    edges from 0, so that 1..10 becomes 0..10. Objects marked ``difficult`` become boxes with
    ``crowd=True``, which are neither trained on nor counted as misses. An image of the list without
    an XML file is left out. Damaged files and objects are recorded in ``BoxSet.faults``.

    Args:
        path: Folder with XML files, such as ``VOC2007`` or its ``Annotations``; or a list in
            ``ImageSets/Main``, such as ``VOC2007/ImageSets/Main/train.txt``, in which each line
            begins with the name of an XML file without its suffix and without spaces.
        images: Folder of the images; None: ``JPEGImages`` or ``images`` in the folder that contains
            ``Annotations`` (or the XML files, if there is no such folder), else that folder itself.

    Raises:
        DataError: There are no XML files, or none has an existing image, or no object has a class,
            or the path of a list is given without its folders.
        OSError: A folder or the list cannot be read.
        UnicodeDecodeError: The list is not UTF-8.
    """
    folder = _annotations_folder(path)
    files = [folder / name for name in list_folder(folder).files if name.lower().endswith(".xml")]
    if path.suffix == ".txt":
        stems = {line.split()[0] for line in read_text(path, "record").splitlines() if line.split()}
        files = [file for file in files if file.stem in stems]
    if not files:
        which = " of its images" if path.suffix == ".txt" else ""
        raise DataError(f"{path}: there are no XML files of Pascal VOC{which} in {folder}")
    base = folder.parent if folder.name == "Annotations" else folder
    root = images or next(base / name for name in _FOLDERS if (base / name).is_dir())
    result = BoxSet(path, root)
    names = {name for name in list_folder(root).files if is_image(name)}
    by_stem = {Path(name).stem: name for name in sorted(names)}
    for file in sorted(files):
        try:
            _add(result, file, parse_xml(file), names, by_stem)
        except DataError as error:
            result.fault(str(error))
    return result.checked().with_sorted_classes()


def _annotations_folder(path: Path) -> Path:
    """Returns the folder with the XML files of a folder or a list."""
    is_list = path.suffix == ".txt"
    if is_list and len(path.parents) < 3:
        raise DataError(f"{path}: give a list of Pascal VOC as FOLDER/ImageSets/Main/NAME.txt")
    top = path.parents[2] if is_list else path
    return top / "Annotations" if (top / "Annotations").is_dir() else top


def _add(
    result: BoxSet,
    file: Path,
    tree: ElementTree.Element,
    names: Collection[str],
    by_stem: Mapping[str, str],
) -> None:
    name = (tree.findtext("filename") or "").strip()
    # Many tools write the name without a suffix or with a wrong one, so stems are compared.
    image = name if name in names else by_stem.get(Path(name).stem or file.stem)
    image = image or by_stem.get(file.stem)
    if image is None:
        result.fault(f"{file}: image {name[:80]!r} is not in {result.root}")
        return
    boxes = []
    for number, item in enumerate(tree.iter("object"), 1):
        label = " ".join((item.findtext("name") or "").split())
        edges = [item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            left, top, right, bottom = (float(edge) for edge in edges if edge is not None)
        except ValueError:
            result.fault(f"{file}: object {number} has no bndbox of four numbers")
            continue
        if not label:
            result.fault(f"{file}: object {number} has no name")
            continue
        crowd = (item.findtext("difficult") or "").strip() == "1"
        boxes.append(Box(result.label(label), left - 1, top - 1, right, bottom, crowd))
    result.add(str(file), image, _size(tree), boxes)


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Returns (width, height); None unless both are whole numbers above 0. Some tools write 0."""
    try:
        width, height = (int(tree.findtext(f"size/{key}") or 0) for key in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None
