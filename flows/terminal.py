"""Printing for a person, and for what a person pipes it into."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

# More than any line: rich would fold and cut at 80 columns, and `grep` would miss what it cut.
_UNCUT = 100_000


def stdout() -> Console:
    """As wide as the terminal; as wide as it takes where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNCUT)


def values_text(state: Mapping[str, Any]) -> list[str]:
    """The values in a stage's progress (loss, learning rate, ...), each as 'name number'."""
    return [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in state.get("values", {}).items()
    ]
