"""Statistics as LeRobot keeps them: per episode beside its row, of all in meta/stats.json.

Quantiles of the whole are those of all values (through t-digests); LeRobot averages its episodes'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics.builder import CENTROIDS
from foundry_core.data.statistics.moments import Moments, combine, of_values

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_LIMIT = 2 * CENTROIDS
_PICTURES = 16
_SIDE = 150


@dataclass(frozen=True, kw_only=True)
class FeatureStats:
    """Of one feature with D dimensions, or channels. count: steps, or pictures looked at."""

    moments: Moments
    digest: digests.Centroids
    count: int
    image: bool

    @classmethod
    def of(cls, values: np.ndarray) -> "FeatureStats":
        """Of numbers [L, D]."""
        wide = np.array(values, np.float64)  # a copy: the digest sorts in place
        digest = digests.from_values(wide, _LIMIT)
        return cls(moments=of_values(wide), digest=digest, count=len(wide), image=False)

    @classmethod
    def of_pictures(cls, pictures: Sequence[np.ndarray]) -> "FeatureStats":
        """Of some pictures, uint8 [H, W, 3], as shares of 255 per channel; large ones are thinned
        out, as LeRobot does."""
        steps = np.linspace(0, len(pictures) - 1, min(len(pictures), _PICTURES)).astype(int)
        thinned = []
        for step in steps.tolist():
            image = pictures[step]
            stride = max(1, max(image.shape[:2]) // _SIDE)
            thinned.append(image[::stride, ::stride].reshape(-1, 3))
        numbers = cls.of(np.concatenate(thinned) / 255.0)
        return cls(moments=numbers.moments, digest=numbers.digest, count=len(thinned), image=True)

    def plus(self, other: "FeatureStats") -> "FeatureStats":
        """Of both together."""
        digest = digests.compress(digests.union([self.digest, other.digest]), _LIMIT)
        return FeatureStats(
            moments=combine(self.moments, other.moments),
            digest=digest,
            count=self.count + other.count,
            image=self.image,
        )

    def lists(self) -> dict[str, list]:
        """{min, max, mean, std, count, q01 ...}: lists of D numbers, of pictures [3][1][1]."""
        moments = self.moments
        low, high = moments.low, moments.high
        few = digests.few_valued(self.digest)
        found = digests.quantiles(self.digest, list(_QUANTILES.values()), low, high, few)
        arrays = {
            "min": low,
            "max": high,
            "mean": moments.mean,
            "std": np.sqrt(moments.m2 / moments.mass),  # of a population, as LeRobot's
            **dict(zip(_QUANTILES, found, strict=True)),
        }
        shape = (-1, 1, 1) if self.image else (-1,)
        return {name: array.reshape(shape).tolist() for name, array in arrays.items()} | {
            "count": [self.count]
        }
