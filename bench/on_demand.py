"""Modules that take seconds to load, those of torch that few runs need most of all: imported when what they do is asked for.

The one way round the rule that imports stand at the top of a file; tests/architecture holds it to the same directions.
"""

from importlib import import_module
from typing import Any


def on_demand(module: str, name: str) -> Any:
    """The thing of that name in a module, which is imported now."""
    return getattr(import_module(module), name)
