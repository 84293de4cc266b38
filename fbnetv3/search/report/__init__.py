"""The report of a search: a single html file that works offline."""

from __future__ import annotations

from fbnetv3.search.report.page import About, Winner, write_report

__all__ = ["About", "Winner", "write_report"]
