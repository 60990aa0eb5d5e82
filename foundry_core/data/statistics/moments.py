"""Count, mean, spread and extremes in float64, merged with Chan's formula.

Legend: R rows (steps × dimensions, flattened or not).
A running sum of squares loses everything at a large offset (in float32, data around 1e4 gets
standard deviation 0); deviations from the mean do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Moments:
    """mass: weight of the observations; m2: weighted sum of squared deviations. All [R]."""

    mass: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Moments":
        """With every array changed in the same way."""
        return Moments(**{name: change(values) for name, values in vars(self).items()})

    def scaled(self, factor: float) -> "Moments":
        """The same observations, each weighing `factor` times as much."""
        return replace(self, mass=self.mass * factor, m2=self.m2 * factor)

    def std(self, count: np.ndarray) -> np.ndarray:
        """Sample standard deviation for `count` observations; 0 where there is only one."""
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = self.m2 / self.mass * (count / np.maximum(count - 1, 1))
        return np.where(count > 0, np.sqrt(np.maximum(variance, 0.0)), np.nan)


def empty(shape: tuple[int, ...]) -> Moments:
    """Of no observations."""
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    return Moments(
        mass=np.zeros(shape), mean=np.zeros(shape), m2=np.zeros(shape), low=low, high=high
    )


def stack(rows: Sequence[Moments]) -> Moments:
    """[R] each → [len(rows), R]."""
    return Moments(**{k: np.stack([vars(row)[k] for row in rows]) for k in vars(rows[0])})


def of_values(values: np.ndarray) -> Moments:
    """Of unit-weight values [n, R], in two passes."""
    n, rows = values.shape
    if n == 0:
        return empty((rows,))
    mean = values.mean(axis=0)
    deviation = values - mean
    shift = deviation.mean(axis=0)  # what rounding left of the mean
    m2 = np.einsum("nr,nr->r", deviation, deviation) - n * shift * shift
    low, high = values.min(axis=0), values.max(axis=0)
    constant = low == high
    return Moments(
        mass=np.full(rows, float(n)),
        mean=np.where(constant, low, mean + shift),
        m2=np.where(constant, 0.0, np.maximum(m2, 0.0)),
        low=low,
        high=high,
    )


def combine(a: Moments, b: Moments) -> Moments:
    """Chan, Golub, LeVeque 1979, equation 2.1."""
    mass = a.mass + b.mass
    safe = np.where(mass > 0, mass, 1.0)
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.mass / safe)
    m2 = a.m2 + b.m2 + delta * delta * (a.mass * b.mass / safe)
    mean = np.where(a.mass == 0, b.mean, np.where(b.mass == 0, a.mean, mean))
    low, high = np.minimum(a.low, b.low), np.maximum(a.high, b.high)
    return Moments(mass=mass, mean=mean, m2=m2, low=low, high=high)
