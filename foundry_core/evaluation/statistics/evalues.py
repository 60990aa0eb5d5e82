"""Anytime-valid evidence that two success rates differ (safe two-sample test).

After Turner & Grünwald (2023), blocks of one episode per arm: the e-value multiplies
    p_a(y_a) p_b(y_b) / (p_0(y_a) p_0(y_b)),   p_0 = (p_a + p_b) / 2,
where p_a and p_b are predicted from the past only. Its expectation is at most 1 at every common
rate, so (Ville) it exceeds 1/α with probability at most α however often one looks.
"""

from collections.abc import Sequence

import numpy as np

from foundry_core.errors import FoundryError

# Marginals of the uniform prior on {rate_a < rate_b}: each bet leans towards its own alternative,
# so that the first pair already counts.
_PRIOR_LOW, _PRIOR_HIGH = (1.0, 2.0), (2.0, 1.0)


def directed_evalues(low: Sequence[bool], high: Sequence[bool]) -> np.ndarray:
    """Running e-values [n] that `high` succeeds more often than `low`, pair by pair."""
    if len(low) != len(high):
        raise FoundryError(f"pairs need equally many outcomes, got {len(low)} and {len(high)}")
    y_low, y_high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    p_low, p_high = _predict(y_low, _PRIOR_LOW), _predict(y_high, _PRIOR_HIGH)
    p_null = (p_low + p_high) / 2
    factors = _chance(p_low, y_low) * _chance(p_high, y_high)
    factors /= _chance(p_null, y_low) * _chance(p_null, y_high)
    return np.exp(np.cumsum(np.log(factors)))


def evalues(base: Sequence[bool], tested: Sequence[bool]) -> np.ndarray:
    """Running two-sided e-values [n]: the mean of both directions."""
    return (directed_evalues(base, tested) + directed_evalues(tested, base)) / 2


def anytime_p(base: Sequence[bool], tested: Sequence[bool]) -> float:
    """p-value that stays valid under optional stopping: 1 / largest e-value so far."""
    if not len(base):
        return 1.0
    return float(min(1.0, 1.0 / evalues(base, tested).max()))


def _predict(outcomes: np.ndarray, prior: tuple[float, float]) -> np.ndarray:
    """Posterior mean of the rate before each outcome."""
    successes, failures = prior
    seen = np.concatenate([[0.0], np.cumsum(outcomes)[:-1]]) if len(outcomes) else outcomes
    return (successes + seen) / (successes + failures + np.arange(len(outcomes)))


def _chance(rate: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    return np.where(outcome > 0, rate, 1 - rate)
