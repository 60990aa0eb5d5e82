"""Numbers that are pure functions of integers: the only randomness of data.

splitmix64's finaliser (Steele, Lea, Flood 2014) over a running state; vectorised over arrays.
Nothing here has a state, so any sample's draws can be made anywhere, in any order.
"""

from functools import lru_cache

import numpy as np

from foundry_core.files import hash64

_GOLDEN = 0x9E3779B97F4A7C15
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """A bijection of 64-bit numbers that spreads every bit over all of them."""
    value = (value ^ (value >> 30)) * _M1 & _MASK
    value = (value ^ (value >> 27)) * _M2 & _MASK
    return value ^ (value >> 31)


def mix_array(values: np.ndarray) -> np.ndarray:
    """The same on uint64 arrays, which wrap around as intended."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_M1)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_M2)
    return values ^ (values >> np.uint64(31))


_of_name = lru_cache(maxsize=4096)(hash64)


def key(*parts: int | str) -> int:
    """64-bit key of a sequence of integers and names; ("a", "b") and ("ab",) differ."""
    state = _GOLDEN
    for part in parts:
        number = _of_name(part) if isinstance(part, str) else int(part)
        state = mix((state + _GOLDEN & _MASK) ^ mix((number + _GOLDEN) & _MASK))
    return state


def uniforms(of: int, n: int) -> np.ndarray:
    """float64 [n] in [0, 1) of a key."""
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (mix_array(steps + np.uint64(of)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
