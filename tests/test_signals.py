"""Signal handlers that are put back."""

from __future__ import annotations

import signal

from fbnetv3.signals import restore_handlers


def test_handlers_are_put_back_also_those_that_python_did_not_set() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    try:
        signal.signal(signal.SIGUSR2, lambda number, frame: None)
        restore_handlers({signal.SIGUSR2: None})
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        restore_handlers({signal.SIGUSR2: signal.SIG_IGN})
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR2, before)
