"""Printing for a person, and for what a person pipes it into."""

from rich.console import Console

# More than any line: rich would fold and cut at 80 columns, and `grep` would miss what it cut.
_UNCUT = 100_000


def stdout() -> Console:
    """As wide as the terminal; as wide as it takes where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_UNCUT)
