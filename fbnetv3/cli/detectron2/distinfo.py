"""Writes the ``dist-info`` folder by which pip lists and uninstalls a package."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from pathlib import Path

WHEEL = "Wheel-Version: 1.0\nGenerator: fbnetv3\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def record(root: Path, itself: str) -> str:
    """Returns the RECORD of every file under ``root``: path, sha256, size.

    Args:
        root: what will be merged into site-packages.
        itself: the RECORD's own path, which is listed without hash and size.
    """
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        content = path.read_bytes()
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.writerow([path.relative_to(root).as_posix(), f"sha256={digest}", len(content)])
    rows.writerow([itself, "", ""])
    return out.getvalue()


def write(
    root: Path,
    *,
    name: str,
    version: str,
    summary: str,
    home_page: str,
    licence: Path,
    requires: Iterable[str],
) -> Path:
    """Writes ``NAME-VERSION.dist-info`` for the files that lie under ``root``; returns its path."""
    info = root / f"{name}-{version}.dist-info"
    info.mkdir()
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        f"Summary: {summary}",
        f"Home-page: {home_page}",
        "License-File: LICENSE",
        *(f"Requires-Dist: {need}" for need in requires),
    ]
    (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
    (info / "INSTALLER").write_text("fbnetv3\n", encoding="utf-8")
    (info / "WHEEL").write_text(WHEEL, encoding="utf-8")
    (info / "top_level.txt").write_text(f"{name}\n", encoding="utf-8")
    shutil.copyfile(licence, info / "LICENSE")
    text = record(root, f"{info.name}/RECORD")
    (info / "RECORD").write_text(text, encoding="utf-8")
    return info
