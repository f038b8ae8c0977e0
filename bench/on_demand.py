"""Modules that take seconds to load, those of torch that few runs need most of all: imported when what they do is asked for.

The one way round the rule that imports stand at the top of a file; tests/architecture holds it to the same directions.
"""

import signal
from importlib import import_module
from typing import Any

# An exception that a handler raises in the middle of an import leaves half a module behind, which nothing can take back.
MAY_INTERRUPT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def on_demand(module: str, name: str) -> Any:
    """The thing of that name in a module, which is imported now; who asks to stop meanwhile is heard when it is there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, MAY_INTERRUPT)
    try:
        loaded = import_module(module)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return getattr(loaded, name)
