"""The blocks of code and commands in the pages of the documentation."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "MODEL_ZOO.md"),
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")),
)
_STARTS = ("fbnetv3-", "python ", "make ", "pip ", "torchrun ", "ray ", "#!/bin/bash", ".venv/bin/")
_SHELL = ("bash", "sh")


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        page: Path of the page in the repository.
        line: Number of its first line, from 1 on.
        kind: ``commands``, or the language of its fence, or ``text`` if it is only indented.
        text: Its lines, without indentation that they share.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


class Command(NamedTuple):
    """A command of a block: its program and arguments, without comments."""

    block: Block
    words: tuple[str, ...]


def blocks_of(page: str) -> list[Block]:
    """Returns the fenced and the indented blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = [
        _block(page, text, fence.start(2), *fence.groups()) for fence in fences.finditer(text)
    ]
    rest = fences.sub(lambda fence: "\n" * fence[0].count("\n"), text)  # keeps the numbers of lines
    indented = re.compile(r"(?<=\n\n)(?:    .*\n(?:\n(?=    ))?)+")
    lists = re.compile(r"^ *(?:[-*]|\d+\.) [^\n]*\n\n\Z", re.MULTILINE)  # a paragraph of a list
    blocks += [
        _block(page, rest, match.start(), "", match[0])
        for match in indented.finditer(rest)
        if not lists.search(rest[: match.start()])
    ]
    return sorted(blocks, key=lambda block: block.line)


def _block(page: str, text: str, start: int, language: str, code: str) -> Block:
    lines = code if language else re.sub(r"^    ", "", code, flags=re.MULTILINE)
    is_shell = language in _SHELL or (not language and lines.startswith(_STARTS))
    kind = "commands" if is_shell else language or "text"
    return Block(page, text.count("\n", 0, start) + 1, kind, lines)


def commands_of(block: Block) -> list[Command]:
    """Returns the commands of a block, one for each line that is no comment."""
    lines = block.text.replace("\\\n", " ").splitlines()
    split = (tuple(shlex.split(line, comments=True)) for line in lines)
    return [Command(block, words) for words in split if words]
