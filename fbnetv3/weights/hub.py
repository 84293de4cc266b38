"""Weights in repositories of Hugging Face's hub: ``hf://OWNER/NAME[@REVISION]``.

A repository has the file that a training exports, ``model.safetensors``, whose metadata describe
the network, the classes and the preprocessing. This module reads no other file of a repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from fbnetv3.errors import first_line
from fbnetv3.requires import require
from fbnetv3.weights.errors import DownloadError, RecordError

HUB_SCHEME = "hf://"
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
_ADDRESS = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


class HubAddress(NamedTuple):
    """A repository of the hub.

    Attributes:
        repository: ``OWNER/NAME``.
        revision: Branch, tag or commit; None: the main branch.
    """

    repository: str
    revision: str | None


def is_hub_address(name: str) -> bool:
    """Whether a name is the address of a repository of the hub."""
    return name.startswith(HUB_SCHEME)


def parse_hub_address(address: str) -> HubAddress:
    """Returns the repository that an address names.

    Raises:
        RecordError: The address does not have the form ``hf://OWNER/NAME[@REVISION]``.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise RecordError(
            f"{address!r} is not the address of a model: write hf://OWNER/NAME, or "
            "hf://OWNER/NAME@REVISION for a branch, tag or commit"
        )
    return HubAddress(match["repository"], match["revision"])


def fetch_from_hub(address: str) -> Path:
    """Returns the path of the weights in a repository of the hub, downloaded on first use.

    The package huggingface_hub downloads them into its own cache. It reads the environment
    variables HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE.

    Args:
        address: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``.

    Raises:
        RecordError: The address has another form.
        DownloadError: There is no such repository, it has no weights, or the hub does not answer.
        MissingPackageError: huggingface_hub is not installed.
    """
    return download_weights(*parse_hub_address(address))


def download_weights(repository: str, revision: str | None = None, **options: Any) -> Path:
    """Returns the path of the weights in a repository of the hub, downloaded on first use.

    Args:
        repository: ``OWNER/NAME``.
        revision: Branch, tag or commit; None: the main branch.
        options: Further arguments of ``huggingface_hub.hf_hub_download``, such as ``token``.

    Raises:
        DownloadError: There is no such repository, it has no weights, or the hub does not answer.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub, errors = require("huggingface_hub", "hub"), require("huggingface_hub.errors", "hub")
    try:
        return Path(hub.hf_hub_download(repository, WEIGHTS_FILE, revision=revision, **options))
    except (OSError, ValueError, errors.HfHubHTTPError, errors.EntryNotFoundError) as error:
        raise DownloadError(
            f"cannot download {WEIGHTS_FILE} of {repository} from Hugging Face's hub: "
            f"{type(error).__name__}: {first_line(error)}; check the name, and HF_TOKEN for a "
            "private repository"
        ) from error
