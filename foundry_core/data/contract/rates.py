"""When two rates are one. No NumPy: planning imports this.

A nominal rate and the one that a recording was made at differ by little (30 and 29.97 Hz); a factor
of two or three is a mistake, and a policy trained on it acts at the wrong speed.
"""

_NEAR = 1.25


def rates_agree(one: float, other: float) -> bool:
    """Whether neither of two rates is more than a quarter above the other."""
    return max(one, other) <= _NEAR * min(one, other)
