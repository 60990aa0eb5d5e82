"""Hints for misspelt names of fields, cameras and files."""

import difflib
from collections.abc import Iterable


def nearest(name: str, present: Iterable[str], limit: int = 12) -> str:
    """ "did you mean 'x'?" where something is close, else what there is (at most `limit`)."""
    names = sorted(set(present))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
    return f"there is: {shown or 'nothing'}"
