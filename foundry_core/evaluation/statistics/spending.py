"""How the error of a test that is looked at repeatedly is spent over its budget (Lan & DeMets)."""

from math import e, log1p, sqrt
from typing import Literal

Spending = Literal["linear", "obrien-fleming", "pocock"]


def spent(spending: Spending, share: float, alpha: float) -> float:
    """The part of alpha that may be used when `share` of the budget is, 0 to 1.

    linear: evenly. obrien-fleming: little early, so that finishing costs almost nothing. pocock:
    nearly equal boundaries, for effects that should show soon.
    """
    if share <= 0:
        return 0.0
    if spending == "linear":
        return min(1.0, share)
    if spending == "pocock":
        return float(log1p((e - 1) * share))
    from scipy import special  # planning knows the names and does without scipy

    z = -special.ndtri(alpha / 2)
    return float(2 * special.ndtr(-z / sqrt(share)) / alpha)
