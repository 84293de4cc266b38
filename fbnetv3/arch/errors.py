"""The error of architectures that are not valid."""

from __future__ import annotations

from fbnetv3.errors import FBNetError


class ArchError(FBNetError):
    """An architecture, one of its rows, or its name is not valid.

    Attributes:
        problem: Description of the problem.
        file: File that holds the architecture, or None.
        arch: Name of the architecture, or None.
        row: Number of the row, counted from 0, or None.
        key: Key that is wrong, or None.
        value: Value of the key; None if the problem is not about a value.
        allowed: Description of the allowed values, or None.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        arch: str | None = None,
        row: int | None = None,
        key: str | None = None,
        value: object = None,
        allowed: str | None = None,
    ) -> None:
        self.problem, self.allowed = problem, allowed
        self.file, self.arch, self.row, self.key, self.value = file, arch, row, key, value
        super().__init__(self._message())

    def _message(self) -> str:
        row = None if self.row is None else f"row {self.row}"
        place = [str(part) for part in (self.file, self.arch, row) if part is not None]
        problem = self.problem
        if self.key is not None:
            value = "" if self.value is None else f"{self.value!r}: "
            problem = f"{self.key}: {value}{problem}"
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return ": ".join([*place, problem]) + allowed

    def at(
        self, *, file: str | None = None, arch: str | None = None, row: int | None = None
    ) -> ArchError:
        """Returns a copy of the error; file, architecture and row are filled in if unknown."""
        return ArchError(
            self.problem,
            file=self.file or file,
            arch=self.arch or arch,
            row=row if self.row is None else self.row,
            key=self.key,
            value=self.value,
            allowed=self.allowed,
        )
