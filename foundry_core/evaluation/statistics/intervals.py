"""What a count of successes says about a success rate: the exact interval."""

from scipy import special

from foundry_core.errors import FoundryError


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
    low = special.betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
    return float(low), float(high)
