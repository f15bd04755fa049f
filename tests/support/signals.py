"""Signals in child processes of tests."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """For ``preexec_fn``: a shell that starts the tests in the background has their children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
