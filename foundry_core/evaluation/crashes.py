"""Why episodes crashed, in a few words each: what a reader of results counts."""

import re
from collections import Counter
from collections.abc import Iterable

# What the last line of a traceback says, by cause: those of LBM Eval's published results, and ours.
_CAUSES = (
    ("solver", re.compile(r"SimFailure|line search|Hessian|simulation is unstable", re.I)),
    ("disk full", re.compile(r"No space left on device")),
    ("missing object", re.compile(r"object '.*' doesn't exist|No such file or directory")),
    ("rejected client", re.compile(r"rejected this client")),
    ("non-finite pose", re.compile(r"non-finite value|not finite|is NaN", re.I)),
    ("process died", re.compile(r"process died|actor died|killed", re.I)),
)
_TYPE = re.compile(r"^([\w.]+(?:Error|Exception|Failure|Interrupt)?)\b")


def crash_cause(message: str | None) -> str:
    """The cause of a crash by its traceback; the exception's own name where it is none we know."""
    lines = [line for line in (message or "").strip().splitlines() if line.strip()]
    if not lines:
        return "unknown"
    last = next((line for line in reversed(lines) if not line.startswith(" ")), lines[-1])
    for cause, pattern in _CAUSES:
        if pattern.search(last):
            return cause
    found = _TYPE.match(last)
    return found[1].rpartition(".")[2] if found else "unknown"


def crash_causes(messages: Iterable[str | None]) -> dict[str, int]:
    """Of the messages of crashed episodes: cause → episodes, the most frequent first."""
    causes = Counter(map(crash_cause, messages))
    return dict(sorted(causes.items(), key=lambda item: (-item[1], item[0])))
