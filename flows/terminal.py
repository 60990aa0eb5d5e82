"""Printing for a person, and for what a person pipes it into."""

import contextlib
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from rich.console import Console
from rich.text import Text

# More than any line: rich would fold and cut at 80 columns, and `grep` would miss what it cut.
_UNCUT = 100_000


def stdout() -> Console:
    """As wide as the terminal; as wide as it takes where there is none."""
    return console_on(None)


def console_on(file: IO[str] | None, *, quiet: bool = False) -> Console:
    """The same on another stream; None: standard output."""
    console = Console(file=file, quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = _UNCUT
    return console


def print_lines(lines: Iterable[str]) -> None:
    """As they are: where the terminal is too narrow, folded between words."""
    out = stdout()
    for line in lines:
        out.print(line, markup=False)


@contextlib.contextmanager
def said_after(seconds: float, text: str) -> Iterator[None]:
    """A line on standard error when the block takes longer than that."""
    timer = threading.Timer(seconds, print, (f"foundry: {text}",), {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def values_text(state: Mapping[str, Any]) -> list[str]:
    """The values in a stage's progress (loss, learning rate, ...), each as 'name number'."""
    return [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in state.get("values", {}).items()
    ]


def print_entries(entries: Iterable[tuple[str, str]]) -> None:
    """Each as its name, bold, and what is to be said of it: one line, or with the following ones
    indented where the terminal is too narrow. Names and words are never cut."""
    out = stdout()
    for name, text in entries:
        lines = textwrap.wrap(
            f"{name}  {text}",
            out.width,
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        shown = Text("\n".join(lines))
        shown.stylize("bold", 0, len(name))
        out.print(shown, soft_wrap=True)
