"""Weights in repositories of Hugging Face's hub, against a local stand-in of the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fbnetv3.weights.errors import RecordError
from fbnetv3.weights.hub import is_hub_address, parse_hub_address
from tests.conftest import ROOT
from tests.fixtures.hub import COMMIT, Hub

pytest.importorskip("huggingface_hub")
# prints the content of the weights at each address, or the error
FETCH = """
import json, sys
from fbnetv3.errors import FBNetError
from fbnetv3.weights.hub import fetch_from_hub
answers = []
for address in sys.argv[1:]:
    try:
        answers.append(fetch_from_hub(address).read_bytes().decode())
    except FBNetError as error:
        answers.append(f"{type(error).__name__}: {error}")
print(json.dumps(answers))
"""


def _fetch(url: str, home: Path, *addresses: str) -> list[str]:
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FETCH, *addresses]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    answers: list[str] = json.loads(run.stdout)
    return answers


def test_addresses() -> None:
    assert parse_hub_address("hf://me/net") == ("me/net", None)
    assert parse_hub_address("hf://me/my.net-1@v1.0") == ("me/my.net-1", "v1.0")
    assert is_hub_address("hf://me/net")
    assert not is_hub_address("zoo://fbnetv3_a")


@pytest.mark.parametrize("address", ["hf://net", "hf://me/net/x", "hf://me/net@", "hf://me/../x@/"])
def test_another_form_is_refused(address: str) -> None:
    with pytest.raises(RecordError, match="write hf://OWNER/NAME"):
        parse_hub_address(address)


def test_weights_are_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["me/net"] = {"model.safetensors": b"weights"}
    hub.repositories["me/empty"] = {}
    addresses = ["hf://me/net", f"hf://me/net@{COMMIT}", "hf://me/net@v9", "hf://me/empty"]
    first, second, revision, empty, other = _fetch(hub.url, tmp_path, *addresses, "hf://me/no")
    assert first == second == "weights"
    for message in (revision, empty, other):
        assert message.startswith("DownloadError: cannot download model.safetensors of me/")
        assert "\n" not in message
    # a server that does not answer: what was downloaded is used
    again, unknown = _fetch("http://127.0.0.1:9", tmp_path, "hf://me/net", "hf://me/no")
    assert again == "weights"
    assert unknown.startswith("DownloadError: ")
