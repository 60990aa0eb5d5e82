"""Errors about names offer the nearest valid one."""

import difflib
from collections.abc import Iterable

_NEAR = 0.5
_LONGEST = 100  # comparing costs the length squared


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest valid ones (several are equally near at times), or
    all when none is near."""
    choices = sorted(valid)
    found = near(name, choices)
    if found:
        return f"did you mean {' or '.join(map(repr, found))}?"
    return f"valid: {', '.join(choices)}" if choices else "nothing is allowed here"


def near(name: str, valid: Iterable[str]) -> list[str]:
    """The valid names that are nearest to this one, sorted; none where none is near."""
    score = {
        c: difflib.SequenceMatcher(None, c[:_LONGEST], name[:_LONGEST]).ratio()
        for c in sorted(valid)
    }
    best = max(score.values(), default=0.0)
    return [c for c in score if score[c] == best] if best >= _NEAR else []
