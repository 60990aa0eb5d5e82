"""What a normaliser makes of the data: what its clip cuts off, and what never moves.

Legend: T steps, D dimensions of a field.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foundry_core.data.robot.normalize import FieldNormalizer, Normalizer
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.digest import mass_outside
from foundry_core.data.statistics.summary import combine_field

NOTED = 0.01  # share of a dimension that is clipped, from which on it is worth a line
_DEAD = 0.2  # of the 2 that bounds lie apart


@dataclass(frozen=True, kw_only=True)
class FieldCoverage:
    """Per dimension. clipped: share of the valid values outside the clip. constant: one value
    throughout. dead: normalised values span less than a tenth of what the bounds span, constant
    ones included; the floor makes them so. by_range: bounded by its extremes."""

    clipped: tuple[float, ...]
    constant: tuple[bool, ...]
    dead: tuple[bool, ...]
    by_range: tuple[bool, ...]


def coverage(statistics: DatasetStatistics, normalizer: Normalizer) -> dict[str, FieldCoverage]:
    """Of the fields that both know. The share is exact to a centroid of the digests; FoundryError
    where the statistics reach further from the anchor than the normaliser."""
    return {
        name: _field(statistics, name, rule)
        for name, rule in normalizer.fields.items()
        if name in statistics.fields
    }


def coverage_notes(found: Mapping[str, FieldCoverage]) -> list[str]:
    """A line per dimension of which more than NOTED is clipped."""
    return [
        f"{share:.1%} of dimension {dim} of {name} lies outside the clip of its normalisation"
        for name, field in found.items()
        for dim, share in enumerate(field.clipped)
        if share > NOTED
    ]


def _field(statistics: DatasetStatistics, name: str, rule: FieldNormalizer) -> FieldCoverage:
    stats = statistics[name]
    shape = stats.min_per_timestep.shape  # [T, D]
    centre, scale = rule.at(stats.min_per_timestep, -stats.past)
    centre, scale = np.broadcast_to(centre, shape), np.broadcast_to(scale, shape)
    clipped = np.zeros(stats.dims)
    if rule.clip is not None:
        reach = rule.clip * scale * (1 + 1e-9)  # bounds themselves are rounded
        digest = combine_field(statistics.parts, name).digest
        outside = mass_outside(digest, (centre - reach).ravel(), (centre + reach).ravel())
        mass = digest.counts.sum(axis=1).reshape(shape).sum(axis=0)
        clipped = outside.reshape(shape).sum(axis=0) / mass
    span = np.nanmax((stats.max_per_timestep - stats.min_per_timestep) / scale, axis=0)
    return FieldCoverage(
        clipped=tuple(clipped.tolist()),
        constant=tuple((stats.min == stats.max).tolist()),
        dead=tuple((span < _DEAD).tolist()),
        by_range=rule.by_range or (False,) * stats.dims,
    )
