"""``--version`` of all commands."""

from __future__ import annotations

import importlib

import pytest

from fbnetv3.version import package_version
from tests.packaging.test_setup import METADATA


@pytest.mark.parametrize("command", METADATA["scripts"])
def test_the_version_is_printed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, _ = METADATA["scripts"][command].partition(":")
    with pytest.raises(SystemExit) as exit:
        importlib.import_module(module).main(["--version"])
    assert exit.value.code in (None, 0)
    assert capsys.readouterr().out == f"{command} {package_version()}\n"
