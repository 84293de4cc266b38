"""Parsing of untrusted XML: without document types and entities, and with limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fbnetv3.data.errors import DataError
from fbnetv3.io import read_file

# Limits of a file, which may be untrusted
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 32  # levels of nested elements


class _Builder(ElementTree.TreeBuilder):
    """Builds a tree of limited size and depth."""

    def __init__(self) -> None:
        super().__init__()
        self._count = self._depth = 0

    def start(self, tag: Any, attrs: Any) -> Any:
        self._count, self._depth = self._count + 1, self._depth + 1
        if self._count > _MAX_ELEMENTS or self._depth > _MAX_DEPTH:
            raise DataError(f"more than {_MAX_ELEMENTS} elements, or {_MAX_DEPTH} levels")
        return super().start(tag, attrs)

    def end(self, tag: Any) -> Any:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuses a document type, in which entities are declared.

        Raises:
            DataError: Always.
        """
        raise DataError("a document type (<!DOCTYPE ...>) is not allowed")


def parse_xml(path: Path) -> ElementTree.Element:
    """Returns the root of an XML file.

    Raises:
        DataError: The file cannot be read, is not XML, declares a document type, is too large, or
            is nested too deeply.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(read_file(path, "record"))
        root: ElementTree.Element = parser.close()
        return root
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not readable as XML: {error}") from error
