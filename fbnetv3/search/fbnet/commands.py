"""The command lines that a run prints and puts on its report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fbnetv3.config import CfgNode
from fbnetv3.user_code import imported_names

_SCRIPTS = {"search": "tools/jointnas_search.py", "train": "tools/train_net.py"}


def command_line(tool: str, *arguments: str) -> str:
    """Returns a command line of this project, quoted for a shell.

    Args:
        tool: ``search`` or ``train``. The command calls the tool's console script if a console
            script started this process, otherwise the tool's file in ``tools/``.
        arguments: Arguments of the command. ``--import`` of this process is added.
    """
    imports = [item for name in imported_names() for item in ("--import", name)]
    arguments = (*imports, *arguments)
    if Path(sys.argv[0]).name.startswith("fbnetv3-"):
        return shlex.join([f"fbnetv3-{tool}", *arguments])
    return shlex.join(["python", _SCRIPTS[tool], *arguments])


def resume_command(folder: Path, cfg: CfgNode) -> str:
    """Returns the command that resumes the search in a folder."""
    config = str(folder / "config.yaml")
    locations = ("SEARCH.STORAGE", "SEARCH.CANDIDATES", "SEARCH.RAY.ADDRESS")
    options = ("OUTPUT_DIR", str(folder), *_given_options(cfg, *locations))
    return command_line("search", "--config-file", config, *options)


def read_command(flag: str, folder: Path, cfg: CfgNode, *arguments: str) -> str:
    """Returns a command that reads the run in a folder.

    Args:
        flag: ``--report`` or ``--evolve``.
        folder: Folder of the run.
        cfg: Config of the search.
        arguments: Further arguments.
    """
    return command_line(
        "search", flag, str(folder), *_given_options(cfg, "SEARCH.STORAGE"), *arguments
    )


def train_command(path: Path) -> str:
    """Returns the command that trains the config of a winner, or resumes its training.

    A winner is a candidate, such as the best one, that a search has written as a config.

    Args:
        path: Path of the config.
    """
    return command_line("train", "--config-file", str(path), "--resume")


def _given_options(cfg: CfgNode, *keys: str) -> list[str]:
    """Returns KEY, VALUE, ... for those of the given keys whose values are not empty.

    The command line repeats these locations: a config file may be untrusted, so that addresses of
    servers, and paths outside its folder and the current one, are refused in it; see
    ``config_file.py``.
    """
    values = {
        "SEARCH.STORAGE": cfg.SEARCH.STORAGE,
        "SEARCH.CANDIDATES": cfg.SEARCH.CANDIDATES,
        "SEARCH.RAY.ADDRESS": cfg.SEARCH.RAY.ADDRESS,
    }
    return [item for key in keys if values[key] for item in (key, values[key])]
