"""Errors about names offer the nearest valid one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest valid one, or all when none is near."""
    choices = sorted(valid)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid: {', '.join(choices)}" if choices else "nothing is allowed here"
