"""Per-field affine normalisation: one object for training and serving.

Legend: T steps of the statistics' window, K steps of the data at hand, D dimensions of a field.
normalised = clip((x - centre) / scale, ±clip). The mode chooses centre and scale:
  percentile_1_99, percentile_5_95, min_max   lower bound → -1, upper bound → +1
  std                                         mean → 0, one standard deviation → 1
  identity                                    unchanged, never clipped
Dimensions with rare values take min_max whatever the mode, see `sparse` of FieldNormalization.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.fields import UNITS, FieldContract, canonical_field
from foundry_core.data.robot.transform_config import (
    RELATIVE,
    FieldNormalization,
    NormalizationConfig,
)
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.summary import FieldStatistics
from foundry_core.errors import FoundryError
from foundry_core.files import json_text, read_json, write_atomic

VERSION = 1
_FORMAT = "foundry-normalizer"
_FLOOR = 1e-2  # metres, radians, entries of a rotation
_OFTEN = 0.5  # the share of one value from which a dimension is sparse
_BOUNDS = {"percentile_1_99": (0.01, 0.99), "percentile_5_95": (0.05, 0.95)}


@dataclass(frozen=True, kw_only=True)
class FieldNormalizer:
    """centre, scale: float64 [D], or [T, D] per timestep with the anchor at index `past`.

    by_range: per dimension, whether it is bounded by its extremes because percentiles would lose
    its rare values, at one step at least. FoundryError for numbers that normalise nothing.
    """

    centre: np.ndarray
    scale: np.ndarray
    clip: float | None
    past: int = 0
    by_range: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        shape = self.centre.shape
        if shape != self.scale.shape or len(shape) not in (1, 2) or 0 in shape:
            raise FoundryError(f"centre {shape} and scale {self.scale.shape}: both [D] or [T, D]")
        if type(self.past) is not int or not 0 <= self.past < (shape[0] if len(shape) == 2 else 1):
            raise FoundryError(f"the anchor lies at step {self.past} of {shape}")
        if not np.isfinite(self.centre).all() or not np.isfinite(self.scale).all():
            raise FoundryError("centre or scale is not finite")
        if not (self.scale > 0).all():
            raise FoundryError(f"a scale is {self.scale.min():g}; scales are positive")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise FoundryError(f"the clip is {self.clip}; it is positive, or null")

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
        meanings: Mapping[str, FieldContract] | None = None,
    ) -> "Normalizer":
        """Of the given fields. Steps without any valid observation take the global numbers.

        meanings: of stored fields, where their names do not tell; for floors in their units.
        """
        config = config or NormalizationConfig()
        names = sorted(set(fields))
        config.check_matches(names)
        made = {}
        for name in names:
            rule, stored = config.rule(name), name.removesuffix(RELATIVE)
            if rule.floor is None:
                meaning = (meanings or {}).get(stored) or canonical_field(stored)
                rule = rule.model_copy(update={"floor": least_scale(meaning)})
            made[name] = _field(name, statistics[name], rule)
        return cls(made)

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
        return json_text({"format": _FORMAT, "version": VERSION, "fields": entries})

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
            document = read_json(path)
            stated = document.get("format"), document.get("version")
            if stated != (_FORMAT, VERSION):
                raise FoundryError(
                    f"normaliser {str(path)!r} states format and version {stated}, known is "
                    f"{(_FORMAT, VERSION)}",
                    "read it with the release that wrote it",
                )
            return cls({name: _read(path, name, e) for name, e in document["fields"].items()})
        except FileNotFoundError:
            raise FoundryError(
                f"no normaliser at {str(path)!r}", "a policy folder holds normalizer.json"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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


def least_scale(meaning: FieldContract) -> float:
    """Floor where the config gives none, in the field's own units: half the stroke of a gripper
    whose ends are known; else 1 cm or 0.01 rad, and a tenth of it for a change from step to step.
    """
    if meaning.open is not None and meaning.closed is not None:
        return abs(meaning.open - meaning.closed) / 2
    unit = UNITS[meaning.unit][1] if meaning.unit else 1.0
    return _FLOOR / unit * (0.1 if meaning.steps == "delta" else 1.0)


def _read(path: Path, name: str, entry: Mapping[str, Any]) -> FieldNormalizer:
    try:
        return FieldNormalizer(
            centre=np.asarray(entry["centre"], dtype=np.float64),
            scale=np.asarray(entry["scale"], dtype=np.float64),
            clip=entry["clip"],
            past=entry["past"],
            by_range=tuple(entry.get("by_range", ())),
        )
    except FoundryError as error:
        raise FoundryError(
            f"normaliser {str(path)!r}, field {name!r}: {error.message}",
            "the file is damaged: take it from the policy's artifact again",
        ) from error


def _field(name: str, stats: FieldStatistics, rule: FieldNormalization) -> FieldNormalizer:
    if rule.mode == "identity":
        return FieldNormalizer(centre=np.zeros(stats.dims), scale=np.ones(stats.dims), clip=None)
    centre, scale, by_range = _affine(name, stats, rule, per_timestep=False)
    if not rule.per_timestep:
        return FieldNormalizer(
            centre=centre, scale=scale, clip=rule.clip, by_range=tuple(by_range.tolist())
        )
    centres, scales, by_range = _affine(name, stats, rule, per_timestep=True)
    seen = (stats.count > 0)[:, None]
    return FieldNormalizer(
        centre=np.where(seen, centres, centre),
        scale=np.where(seen, scales, scale),
        clip=rule.clip,
        past=stats.past,
        by_range=tuple(np.any(by_range & seen, axis=0).tolist()),
    )


def _affine(
    name: str, stats: FieldStatistics, rule: FieldNormalization, *, per_timestep: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centre, scale, which of them are bounded by the extremes), [D] or [T, D]."""
    assert rule.floor is not None
    suffix = "_per_timestep" if per_timestep else ""
    least, most = getattr(stats, f"min{suffix}"), getattr(stats, f"max{suffix}")
    if rule.mode == "std":
        centre, scale = getattr(stats, f"mean{suffix}"), getattr(stats, f"std{suffix}")
    else:
        if rule.mode == "min_max":
            low, high = least, most
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
    by_range = np.zeros(scale.shape, bool)
    if rule.sparse == "range" and rule.mode != "min_max":
        quantiles = stats.quantiles_per_timestep if per_timestep else stats.quantiles
        resting = np.fmin(scale, (quantiles[0.99] - quantiles[0.01]) / 2) <= rule.floor
        by_range = stats.discrete | (stats.mode_share >= _OFTEN) | resting
        # A signal of few values means the same at every step.
        least = np.where(stats.discrete, stats.min, least)
        most = np.where(stats.discrete, stats.max, most)
        centre = np.where(by_range, (least + most) / 2, centre)
        scale = np.where(by_range, (most - least) / 2, scale)
    return centre, np.fmax(scale, rule.floor), by_range
