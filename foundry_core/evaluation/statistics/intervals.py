"""What a count of successes says about a success rate: the exact interval.

Every command ends with some. Of so few episodes as one usually has the interval is found here in a
millisecond: scipy, which has it for any number, takes longer to import than a cached run lasts.
"""

from math import exp, lgamma, log

from foundry_core.errors import FoundryError

# Above so many episodes scipy is faster, its import included.
_FEW = 4000


def check_counts(successes: int, n: int) -> None:
    """Raises FoundryError unless 0 <= successes <= n."""
    if not 0 <= successes <= n:
        raise FoundryError(f"{successes} successes in {n} episodes: must be between 0 and {n}")


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate (Clopper & Pearson 1934): covers with at least `confidence`.

    Each tail holds at most (1 - confidence) / 2 whatever the rate, so the interval is never too
    short; nothing observed (n = 0) leaves (0, 1).
    """
    check_counts(successes, n)
    if not 0 < confidence < 1:
        raise FoundryError(f"confidence {confidence} must lie strictly between 0 and 1")
    tail = (1 - confidence) / 2
    low = _least_rate(successes, n, tail) if successes else 0.0
    high = 1 - _least_rate(n - successes, n, tail) if successes < n else 1.0
    return low, high


def _least_rate(successes: int, n: int, tail: float) -> float:
    """The rate at which `successes` or more of n have probability `tail`; successes > 0."""
    if n > _FEW:
        from scipy import special

        return float(special.betaincinv(successes, n - successes + 1, tail))
    below, above = 0.0, successes / n  # there it is about a half, or 1 where all succeeded
    while below < (rate := (below + above) / 2) < above:
        if _at_least(successes, n, rate) < tail:
            below = rate
        else:
            above = rate
    return rate


def _at_least(successes: int, n: int, rate: float) -> float:
    """P(X ≥ successes) of n at a rate below successes / n: terms that fall from the first on."""
    choose = lgamma(n + 1) - lgamma(successes + 1) - lgamma(n - successes + 1)
    term = exp(choose + successes * log(rate) + (n - successes) * log(1 - rate))
    odds, total = rate / (1 - rate), 0.0
    for k in range(successes, n + 1):
        total += term
        term *= odds * (n - k) / (k + 1)
    return total
