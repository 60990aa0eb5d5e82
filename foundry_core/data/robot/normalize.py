"""Per-field affine normalisation: one object for training and serving.

Legend: T steps of the statistics' window, K steps of the data at hand, D dimensions of a field.
normalised = clip((x - centre) / scale, ±clip). The mode chooses centre and scale:
  percentile_1_99, percentile_5_95, min_max   lower bound → -1, upper bound → +1
  std                                         mean → 0, one standard deviation → 1
  identity                                    unchanged, never clipped
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.robot.transform_config import FieldNormalization, NormalizationConfig
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.summary import FieldStatistics
from foundry_core.errors import FoundryError
from foundry_core.files import json_text, read_json, write_atomic

_BOUNDS = {"percentile_1_99": (0.01, 0.99), "percentile_5_95": (0.05, 0.95)}


@dataclass(frozen=True, kw_only=True)
class FieldNormalizer:
    """centre, scale: float64 [D], or [T, D] per timestep with the anchor at index `past`."""

    centre: np.ndarray
    scale: np.ndarray
    clip: float | None
    past: int = 0

    @property
    def dims(self) -> int:
        return self.centre.shape[-1]

    def clipped(self, normalised: np.ndarray) -> np.ndarray:
        return normalised if self.clip is None else np.clip(normalised, -self.clip, self.clip)

    def at(self, values: np.ndarray, first_step: int) -> tuple[np.ndarray, np.ndarray]:
        """(centre, scale) for values [..., K, D] or [D] whose first step is `first_step`."""
        if self.centre.ndim == 1:
            return self.centre, self.scale
        steps = values.shape[-2] if values.ndim > 1 else 1
        start = self.past + first_step
        if start < 0 or start + steps > len(self.centre):
            raise FoundryError(
                f"steps {first_step}..{first_step + steps - 1} around the anchor have no "
                f"statistics; there are {-self.past}..{len(self.centre) - self.past - 1}",
                "widen the converted window, shorten the horizon, or normalise globally "
                "(per_timestep: false)",
            )
        here = slice(start, start + steps) if values.ndim > 1 else start
        return self.centre[here], self.scale[here]


class Normalizer:
    """Fields → FieldNormalizer.

    Values are [..., K, D] (or [D], one step) and `first_step` is the offset of their first step
    from the anchor: -1 for the step before it. float32 or float64 in, float64 out. Denormalising
    a normalised value returns it to rounding wherever it was not clipped.
    """

    def __init__(self, fields: Mapping[str, FieldNormalizer]) -> None:
        self.fields = dict(sorted(fields.items()))

    @classmethod
    def from_statistics(
        cls,
        statistics: DatasetStatistics,
        fields: Iterable[str],
        config: NormalizationConfig | None = None,
    ) -> "Normalizer":
        """Of the given fields. Steps without any valid observation take the global numbers."""
        config = config or NormalizationConfig()
        names = sorted(set(fields))
        config.check_matches(names)
        return cls({n: _field(n, statistics[n], config.rule(n)) for n in names})

    def __getitem__(self, field: str) -> FieldNormalizer:
        if field not in self.fields:
            raise FoundryError(
                f"the normaliser does not know field {field!r}", nearest(field, self.fields)
            )
        return self.fields[field]

    def normalize(self, field: str, values: np.ndarray, first_step: int = 0) -> np.ndarray:
        """Of a field, [..., K, D]. FoundryError for other dimensions than the statistics have."""
        rule = self._checked(field, values)
        centre, scale = rule.at(values, first_step)
        return rule.clipped((values - centre) / scale)

    def denormalize(self, field: str, values: np.ndarray, first_step: int = 0) -> np.ndarray:
        """The inverse of `normalize`."""
        rule = self._checked(field, values)
        centre, scale = rule.at(values, first_step)
        return rule.clipped(values) * scale + centre

    def to_json(self) -> str:
        """The text of normalizer.json."""
        entries = {
            name: vars(field) | {"centre": field.centre.tolist(), "scale": field.scale.tolist()}
            for name, field in self.fields.items()
        }
        return json_text({"format": "foundry-normalizer", "version": 1, "fields": entries})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes normalizer.json."""
        write_atomic(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Normalizer":
        """Of normalizer.json (or the folder that holds it)."""
        path = Path(path)
        if path.is_dir():
            path = path / "normalizer.json"
        try:
            entries = read_json(path)["fields"]
            return cls(
                {
                    name: FieldNormalizer(
                        centre=np.asarray(entry["centre"], dtype=np.float64),
                        scale=np.asarray(entry["scale"], dtype=np.float64),
                        clip=entry["clip"],
                        past=entry["past"],
                    )
                    for name, entry in entries.items()
                }
            )
        except FileNotFoundError:
            raise FoundryError(
                f"no normaliser at {str(path)!r}", "a policy folder holds normalizer.json"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise FoundryError(f"normaliser {str(path)!r} is damaged: {error!r}") from error

    def _checked(self, field: str, values: np.ndarray) -> FieldNormalizer:
        rule = self[field]
        if values.shape[-1] != rule.dims:
            raise FoundryError(
                f"field {field!r} has {values.shape[-1]} dimensions here, {rule.dims} in the "
                "statistics",
                "the data and the statistics come from different conversions",
            )
        return rule


def _field(name: str, stats: FieldStatistics, rule: FieldNormalization) -> FieldNormalizer:
    centre, scale = _affine(name, stats, rule, per_timestep=False)
    if not rule.per_timestep or rule.mode == "identity":
        clip = None if rule.mode == "identity" else rule.clip
        return FieldNormalizer(centre=centre, scale=scale, clip=clip)
    centres, scales = _affine(name, stats, rule, per_timestep=True)
    seen = (stats.count > 0)[:, None]
    return FieldNormalizer(
        centre=np.where(seen, centres, centre),
        scale=np.where(seen, scales, scale),
        clip=rule.clip,
        past=stats.past,
    )


def _affine(
    name: str, stats: FieldStatistics, rule: FieldNormalization, *, per_timestep: bool
) -> tuple[np.ndarray, np.ndarray]:
    suffix = "_per_timestep" if per_timestep else ""
    if rule.mode == "identity":
        return np.zeros(stats.dims), np.ones(stats.dims)
    if rule.mode == "std":
        centre, scale = getattr(stats, f"mean{suffix}"), getattr(stats, f"std{suffix}")
    else:
        if rule.mode == "min_max":
            low, high = getattr(stats, f"min{suffix}"), getattr(stats, f"max{suffix}")
        else:
            quantiles = stats.quantiles_per_timestep if per_timestep else stats.quantiles
            low, high = (quantiles[q] for q in _BOUNDS[rule.mode])
        centre, scale = (low + high) / 2, (high - low) / 2
    holes = np.isnan(centre) | np.isnan(scale)
    if per_timestep:
        holes &= (stats.count > 0)[:, None]
    if holes.any():
        raise FoundryError(
            f"the statistics of {name!r} lack what mode {rule.mode!r} needs",
            "choose another mode or recompute them with `foundry data stats`",
        )
    return centre, np.fmax(scale, rule.floor)
