"""Class folders: which folders of a listing are classes, and which files belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fbnetv3.data.errors import DataError, some
from fbnetv3.image_files import IMAGE_SUFFIXES, Listing, count_suffixes, is_image

_SPLIT_NAMES = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval")
)
_LAYOUT = "images must be at CLASS/NAME.jpg"


@dataclass(frozen=True)
class ClassFolders:
    """The images of a listing by class.

    Attributes:
        prefix: Posix path of the folder that contains the class folders, relative to the root;
            it is empty or ends with a slash.
        classes: Names of the class folders, sorted.
        files: Posix path of each image relative to ``prefix``, sorted by class and name.
        targets: Index of each file's class in ``classes``.
        notes: Warnings about what a user may not expect, such as files that are left out.
    """

    prefix: str
    classes: list[str]
    files: list[str]
    targets: list[int]
    notes: tuple[str, ...]


def find_classes(path: Path, listing: Listing) -> ClassFolders:
    """Returns the class folders of a listing.

    The folders directly below the root are the classes. If all class folders are in one folder, at
    any depth, the folders directly below that folder are the classes instead.

    Args:
        path: Path of the folder or archive, for messages.
        listing: Files and folders in it.

    Raises:
        DataError: There are no class folders, a class folder has no images, the folders are splits
            of a data set instead of classes, or the only folder has both images of its own and
            several subfolders with images.
    """
    images = listing.images
    prefix = _wrapper(images, listing.files)
    outside = [n for n in images if not n.startswith(prefix) or "/" not in n[len(prefix) :]]
    names = [name for name in _below(images, prefix) if "/" in name]
    others = _below(listing.others, prefix)
    owners = {_top(name) for name in names}
    folders = {_top(name) for name in _below(listing.folders, prefix)}
    classes = sorted({*owners, *(name for name in folders if not is_image(name))})
    place = Path(path, prefix)
    _refuse_splits(path, prefix, classes, names)
    _check_images(place, classes, owners, others)
    _refuse_mixed_levels(place, classes, names)
    index = {name: i for i, name in enumerate(classes)}
    pairs = sorted((index[_top(name)], name) for name in names)
    notes = (
        *_wrapper_notes(path, prefix, classes),
        *_outside_notes(place, outside),
        *_class_notes(place, classes, names),
        *_suffix_notes(place, [name for name in others if "/" in name]),
    )
    files, targets = [name for _, name in pairs], [target for target, _ in pairs]
    return ClassFolders(prefix, classes, files, targets, notes)


def _top(name: str) -> str:
    return name.split("/", 1)[0]


def _below(names: Iterable[str], prefix: str) -> list[str]:
    if not prefix:
        return list(names)
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def _only_folder(names: Iterable[str]) -> str:
    """Returns the single top-level folder with files; "" if there are several or none."""
    only = ""
    for name in names:
        if "/" in name:
            top = _top(name)
            if only and top != only:
                return ""
            only = top
    return only


def _wrapper(images: Sequence[str], files: Sequence[str]) -> str:
    """Returns the path of the folder with the class folders, with a slash; "" for the root.

    The search descends while there is only one folder with files; files beside it do not matter.
    The folders where it ends are the classes. But if it ends at a folder without folders of images,
    or if the classes have fewer than half of the images, the first folder on the way with images
    directly in it is the only class, and the path of its parent is returned.
    """
    prefix, class_prefix = "", None
    while folder := _only_folder(_below(files, prefix)):
        inside = _below(images, f"{prefix}{folder}/")
        if class_prefix is None and any("/" not in name for name in inside):
            class_prefix = prefix
        if not any("/" in name for name in inside):
            return class_prefix or ""
        prefix += f"{folder}/"
    num_kept = sum("/" in name for name in _below(images, prefix))
    if class_prefix is not None and 2 * num_kept < len(images):
        return class_prefix  # a class with some images in subfolders
    return prefix


def _refuse_splits(path: Path, prefix: str, classes: Sequence[str], names: Sequence[str]) -> None:
    splits = [c for c in classes if c.lower() in _SPLIT_NAMES]
    nested = {_top(name) for name in names if name.count("/") > 1}
    if splits and (len(splits) == len(classes) or (len(splits) > 1 and nested.issuperset(splits))):
        paths = ", ".join(f"{prefix}{split}" for split in splits)
        one = "an archive of one of them" if path.is_file() else "one of them"
        raise DataError(f"{path}: contains splits instead of classes; give {one}: {paths}")


def _refuse_mixed_levels(place: Path, classes: Sequence[str], names: Sequence[str]) -> None:
    """Refuses a single class that has images of its own and also several subfolders with images."""
    inner = sorted({name.split("/")[1] for name in names if name.count("/") > 1})
    if len(classes) == 1 and len(inner) > 1:
        only = place / classes[0]
        loose = sum(name.count("/") == 1 for name in names)
        raise DataError(
            f"{place}: {classes[0]} is the only folder; it has subfolders that look like classes "
            f"({some(inner)}), and {loose} images beside them; move the {loose} images into class "
            f"folders, or delete them, and give {only} as the data set"
        )


def _check_images(
    place: Path, classes: Sequence[str], with_images: set[str], others: Sequence[str]
) -> None:
    suffixes = ", ".join(sorted(s[1:] for s in IMAGE_SUFFIXES))
    if not with_images:
        raise DataError(
            f"{place}: no images in class folders; {_LAYOUT} (suffixes: {suffixes})"
            f"{_others(others)}"
        )
    empty = [c for c in classes if c not in with_images]
    if empty:
        inside = [name for name in others if _top(name) in set(empty) and "/" in name]
        more = f"; suffixes of images: {suffixes}" if inside else ""
        raise DataError(
            f"{place}: class folder without images: {some(empty)}{_others(inside)}; add images or "
            f"delete the folder{more}"
        )


def _others(others: Sequence[str]) -> str:
    """Returns the end of a message about files that are not images; "" if there are none."""
    if not others:
        return ""
    files = "is 1 other file" if len(others) == 1 else f"are {len(others)} other files"
    return f"; there {files}, such as {others[0]} ({count_suffixes(others)})"


def _wrapper_notes(path: Path, prefix: str, classes: Sequence[str]) -> Iterator[str]:
    if prefix:
        yield f"{path}: the classes are the subfolders of {prefix[:-1]}: {some(classes)}"
    if len(classes) == 1:
        yield f"{path}: there is only one class, {classes[0]}; {_LAYOUT}"


def _outside_notes(place: Path, outside: Sequence[str]) -> Iterator[str]:
    if outside:
        yield (
            f"{place}: {len(outside)} images outside of the class folders are left out: "
            f"{some(outside, 3)}"
        )


def _class_notes(place: Path, classes: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yields a note about classes that look like folders of classes themselves."""
    direct = {_top(name) for name in names if name.count("/") == 1}
    inner: dict[str, set[str]] = {}
    for name in names:
        if name.count("/") > 1 and _top(name) not in direct:
            inner.setdefault(_top(name), set()).add(name.split("/")[1])
    gathered = [c for c in classes if len(inner.get(c, ())) > 1]
    if gathered:
        first = gathered[0]
        yield (
            f"{place}: {len(gathered)} of {len(classes)} classes have several subfolders with "
            f"images, which count as one class ({first}: {some(sorted(inner[first]))}); if the "
            f"subfolders are the classes, give {place / first}"
        )


def _suffix_notes(place: Path, others: Sequence[str]) -> Iterator[str]:
    if others:
        count = "1 file is" if len(others) == 1 else f"{len(others)} files are"
        yield (
            f"{place}: {count} left out, without the suffix of an image: "
            f"{count_suffixes(others)}, such as {others[0]}"
        )
