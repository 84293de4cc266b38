"""Labelled image files that a CSV or Parquet file lists: ``path,label`` or ``path,labels``."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fbnetv3.data.decode import read_image_file
from fbnetv3.data.errors import DataError, all_problems, some
from fbnetv3.data.sources import Source
from fbnetv3.io import open_regular, read_text
from fbnetv3.requires import require

TABLES = (".csv", ".parquet")
SEPARATOR = "|"  # between the labels of an image
_MAX_ROWS = 2**26  # of a Parquet file
_MAX_CLASSES = 100_000
_Row = tuple[str, Any]  # path, and the value in the column of labels
# What a number of a row counts, and the number of each row: lines of a CSV; rows of a Parquet file,
# from 2 as if its header were row 1
_Places = tuple[str, Sequence[int]]


class TableSource(Source):
    """Image files with the labels that a table gives them.

    A table has the column ``path`` and either the column ``label`` with the class of each image, or
    the column ``labels`` with any number of classes, separated by ``|`` (in Parquet also as a
    list); an empty text in ``labels`` means no class. Paths are relative to the table's folder and
    must not contain ``..``. The classes are sorted by name, or are the lines of ``classes.txt`` in
    that folder, if there is one.

    Args:
        path: CSV with a header, or Parquet file.

    Raises:
        DataError: The table is damaged, lacks a column, or has a row that is not allowed, or
            ``classes.txt`` is not allowed.
        OSError: The table or ``classes.txt`` cannot be read.
        MissingPackageError: pyarrow, which reads Parquet, is not installed.
    """

    def __init__(self, path: Path) -> None:
        rows, several, places = _read(path)
        if not rows:
            raise DataError(f"{path}: the table has no rows; give each image a row path,label")
        labels = [_labels(value) if several else (str(value).strip(),) for _, value in rows]
        classes = _classes(path, labels)
        problems = _problems(rows, labels, several, set(classes), places)
        if problems:
            raise DataError(f"{path}: {all_problems(problems)}; correct or remove the rows")
        index = {name: number for number, name in enumerate(classes)}
        numbered = [tuple(sorted({index[name] for name in names})) for names in labels]
        targets: list[Any] = list(numbered) if several else [numbers[0] for numbers in numbered]
        super().__init__(path, classes, [name for name, _ in rows], targets)
        self.is_multi_label = several

    def read(self, i: int) -> bytes:
        try:
            return read_image_file(self.path.parent / self.files[i])
        except OSError as error:
            raise DataError(
                f"{self.file_name(i)}: cannot read the file ({error.strerror or error}); "
                "restore it, or set DATA.SKIP_BROKEN True"
            ) from error

    def file_name(self, i: int) -> str:
        return f"{self.path.parent}/{self.files[i]}"


def _read(path: Path) -> tuple[list[_Row], bool, _Places]:
    """Returns the path and label of each row, whether an image may have several, and the places."""
    if path.suffix.lower() == ".csv":
        columns, places = _csv(path)
    else:
        columns, places = _parquet(path), ("row", range(2, _MAX_ROWS + 2))
    several = "labels" in columns
    if "path" not in columns or several == ("label" in columns):
        raise DataError(
            f"{path}: the columns are {some(list(columns))}; allowed: path and label (one class "
            f"per image), or path and labels (several, separated by {SEPARATOR!r})"
        )
    label = columns["labels" if several else "label"]
    return (
        [(str(p).strip(), v) for p, v in zip(columns["path"], label, strict=True)],
        several,
        places,
    )


def _csv(path: Path) -> tuple[Mapping[str, Sequence[Any]], _Places]:
    """Returns the columns, and the line of the file on which each row ends."""
    try:
        text = read_text(path, "annotations").removeprefix("\ufeff")
        reader = csv.reader(io.StringIO(text))
        rows, lines = list[list[str]](), list[int]()
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {line} has {len(row)} columns, but the header has {len(header)}; "
                "put values with commas in quotes"
            )
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}
    return columns, ("line", lines[1:])


def _parquet(path: Path) -> Mapping[str, Sequence[Any]]:
    parquet = require("pyarrow.parquet", "huggingface")
    with open_regular(path, 2**32) as file:
        try:
            table = parquet.ParquetFile(file)
            if table.metadata.num_rows > _MAX_ROWS:
                raise DataError(
                    f"{path}: {table.metadata.num_rows} rows; allowed: at most {_MAX_ROWS}"
                )
            names = [n for n in table.schema_arrow.names if n in ("path", "label", "labels")]
            columns: Mapping[str, Sequence[Any]] = table.read(columns=names).to_pydict()
        except DataError:
            raise
        except Exception as error:  # pyarrow raises errors of several kinds on damaged files
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: cannot be read as Parquet: {reason}") from error
    return columns


def _labels(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    names = value if isinstance(value, list) else str(value).split(SEPARATOR)
    return tuple(str(name).strip() for name in names if str(name).strip())


def _classes(path: Path, labels: Sequence[tuple[str, ...]]) -> list[str]:
    file = path.parent / "classes.txt"
    names = sorted({name for row in labels for name in row})
    if file.is_file():
        try:
            lines = read_text(file, "record").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: cannot be read as UTF-8: {error}") from error
        listed = [line.strip() for line in lines if line.strip()]
        if len(set(listed)) != len(listed):
            raise DataError(f"{file}: a class is listed twice; give each class one line")
        names = listed
    if len(names) > _MAX_CLASSES:
        raise DataError(f"{path}: {len(names)} classes; allowed: at most {_MAX_CLASSES}")
    return names


def _problems(
    rows: Sequence[_Row],
    labels: Sequence[tuple[str, ...]],
    several: bool,
    known: set[str],
    places: _Places,
) -> list[str]:
    """Returns the errors in the rows, with their places."""
    (word, numbers), problems, earlier = places, list[str](), dict[str, int]()
    for number, (name, value), names in zip(numbers, rows, labels, strict=False):
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
            problems.append(
                f"{word} {number}: path {name[:80]!r} is not a relative path with '/' below the "
                "folder of the table"
            )
        elif name in earlier:
            problems.append(f"{word} {number}: {name} was in {word} {earlier[name]} already")
        elif not several and (value is None or not names[0]):
            problems.append(f"{word} {number}: {name} has no label")
        elif not known.issuperset(names):
            unknown = [label for label in names if label not in known]
            problems.append(f"{word} {number}: classes.txt lacks {some(unknown)}")
        earlier.setdefault(name, number)
    return problems
