"""Laws of sums of successes, as arrays of probabilities: what the exact tests convolve."""

from collections.abc import Mapping, Sequence
from math import gcd, prod

import numpy as np

# Weights of unequal tasks are rounded to this many steps: the law stays exact, the statistic is a
# hair different.
_STEPS = 100
# Products above which a convolution by Fourier transform is cheaper; it is good to about 1e-15.
_DIRECT = 50_000_000
# Values of a sum of laws up to which each is kept on its own, without a lattice.
_POINTS = 200_000


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Equal weights are ones: the lattice is whole successes."""
    largest = max(weights)
    rounded = [max(1, round(_STEPS * weight / largest)) for weight in weights]
    common = gcd(*rounded)
    return [weight // common for weight in rounded]


def _fair(count: int) -> np.ndarray:
    """Binomial probabilities of `count` fair coins, by ratios from the middle outward."""
    half = count // 2
    heads = np.arange(half, count)
    up = np.concatenate([[1.0], np.cumprod((count - heads) / (heads + 1))])
    law = np.concatenate([up[count - 2 * half + 1 :][::-1], up])
    return law / law.sum()


def power(law: np.ndarray, count: int) -> np.ndarray:
    """The law of the sum of `count` independent draws."""
    if len(law) == 2 and law[0] == law[1]:
        return _fair(count)
    result, square = np.ones(1), law
    while count:
        if count & 1:
            result = convolve(result, square)
        count >>= 1
        if count:
            square = convolve(square, square)
    return result


def tails(laws: Mapping[int, np.ndarray], seen: int) -> tuple[float, float]:
    """P(Σ weight · X <= seen) and P(Σ weight · X >= seen); laws: weight → of X. Of the widest only
    the tails are needed, so the long lattice of all weights together is seldom made."""
    widest = max(laws, key=lambda weight: len(laws[weight]))
    last = laws[widest]
    others = {weight: law for weight, law in laws.items() if weight != widest}
    values, chances = _others(list(others.values()), list(others))
    left = seen - values
    up_to = np.concatenate([[0.0], np.cumsum(last)])  # [k]: P(X < k)
    beyond = np.concatenate([np.cumsum(last[::-1])[::-1], [0.0]])  # [k]: P(X >= k)
    lower = chances @ up_to[np.clip(left // widest + 1, 0, len(last))]
    upper = chances @ beyond[np.clip(-(-left // widest), 0, len(last))]
    return float(lower), float(upper)


def _others(laws: Sequence[np.ndarray], weights: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Values of Σ weight · X, some more than once, and their probabilities."""
    if prod(map(len, laws)) > _POINTS:
        law = _weighted_sum(laws, weights)
        values = np.flatnonzero(law)
        return values, law[values]
    values, chances = np.zeros(1, dtype=int), np.ones(1)
    for law, weight in zip(laws, weights, strict=True):
        values = np.add.outer(values, weight * np.arange(len(law))).ravel()
        chances = np.multiply.outer(chances, law).ravel()
    return values, chances


def _weighted_sum(laws: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
    """The law of Σ weight · X."""
    spread = []
    for law, weight in zip(laws, weights, strict=True):
        wide = np.zeros((len(law) - 1) * weight + 1)
        wide[::weight] = law
        spread.append(wide)
    total = np.ones(1)
    for wide in sorted(spread, key=len):
        total = convolve(total, wide)
    return total


def convolve(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # Direct sums keep even the smallest tail to many digits.
    if np.count_nonzero(left) * len(right) <= _DIRECT or len(left) * len(right) <= _DIRECT:
        if len(left) > len(right):
            left, right = right, left
        if 4 * np.count_nonzero(left) < len(left):
            out = np.zeros(len(left) + len(right) - 1)
            for at in np.flatnonzero(left):
                out[at : at + len(right)] += left[at] * right
            return out
        return np.convolve(left, right)
    size = len(left) + len(right) - 1
    length = 1 << (size - 1).bit_length()
    product = np.fft.rfft(left, length) * np.fft.rfft(right, length)
    return np.maximum(np.fft.irfft(product, length)[:size], 0.0)
