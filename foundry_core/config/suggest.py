"""Errors about names offer the nearest valid one."""

import difflib
from collections.abc import Iterable

_NEAR = 0.5
_LONGEST = 100  # comparing costs the length squared


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest valid ones (several are equally near at times), or
    all when none is near."""
    choices = sorted(valid)
    score = {
        c: difflib.SequenceMatcher(None, c[:_LONGEST], name[:_LONGEST]).ratio() for c in choices
    }
    best = max(score.values(), default=0.0)
    if best >= _NEAR:
        return f"did you mean {' or '.join(repr(c) for c in choices if score[c] == best)}?"
    return f"valid: {', '.join(choices)}" if choices else "nothing is allowed here"
