"""How each field is normalised, as recipes say it. No NumPy: planning imports this."""

import fnmatch
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

Mode = Literal["percentile_1_99", "percentile_5_95", "min_max", "std", "identity"]


class FieldNormalization(Config):
    """Rule of one field.

    floor: least half-range (std: least deviation) of a dimension, in its own units; without it a
    constant dimension's scale is its sensor's noise.
    clip: bound on the normalised value; None never clips. identity ignores both.
    """

    mode: Mode = "percentile_1_99"
    per_timestep: bool = True
    clip: float | None = Field(1.5, gt=0)
    floor: float = Field(1e-2, gt=0)


class FieldOverride(Config):
    """The settings of a rule that differ for some fields; None keeps the general one."""

    mode: Mode | None = None
    per_timestep: bool | None = None
    clip: float | None = Field(None, gt=0)
    no_clip: bool = False
    floor: float | None = Field(None, gt=0)


class NormalizationConfig(FieldNormalization):
    """The general rule, and overrides by exact field name or glob.

    An exact name wins over globs; among matching globs the longest pattern wins (then the
    alphabetically first), so that the order of a YAML mapping never matters.
    """

    fields: Mapping[str, FieldOverride] = {}

    def rule(self, field: str) -> FieldNormalization:
        """The rule of one field, overrides applied."""
        general = {name: getattr(self, name) for name in FieldNormalization.model_fields}
        override = self.fields.get(field)
        if override is None:
            globs = [p for p in self.fields if fnmatch.fnmatchcase(field, p)]
            if not globs:
                return FieldNormalization(**general)
            override = self.fields[min(globs, key=lambda p: (-len(p), p))]
        changed = {
            name: getattr(override, name)
            for name in FieldNormalization.model_fields
            if getattr(override, name) is not None
        }
        if override.no_clip:
            changed["clip"] = None
        return FieldNormalization(**(general | changed))

    def check_matches(self, fields: list[str]) -> None:
        """An override that matches no field is a typing error, not a wish."""
        for pattern in self.fields:
            if pattern not in fields and not any(fnmatch.fnmatchcase(f, pattern) for f in fields):
                raise FoundryError(
                    f"normalization override {pattern!r} matches none of the fields "
                    f"{', '.join(sorted(fields))}",
                    "use an exact field name or a glob such as '*__xyz*'",
                )
