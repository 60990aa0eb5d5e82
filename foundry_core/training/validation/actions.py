"""How far predicted actions are from demonstrated ones, in units that a person knows.

Legend: n samples of a chunk, B batch, K horizon steps, A action dims, D dims of one field.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from foundry_core.data.contract.fields import (
    UNITS,
    FieldContract,
    RotationForm,
    canonical_field,
)
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.rotations import to_matrix
from foundry_core.data.robot.transform_config import RELATIVE
from foundry_core.data.robot.transforms import RobotTransform
from foundry_core.errors import FoundryError
from foundry_core.training.validation.measures import RANGE, STROKE

_RADIAN = 180 / math.pi


@dataclass(frozen=True, kw_only=True)
class ActionErrors:
    """One kind of error, e.g. position_mm, summed over its fields (two arms, say). error: float64
    [n,B,K]; valid: int [B,K], how many fields it is the sum of."""

    error: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, kw_only=True)
class ActionRuler:
    """position_mm (Euclidean), rotation_deg (the angle between), joints_deg (mean of the joints),
    gripper (share of its stroke, or of its range in the data where its ends are not known), other
    (normalised units). Relative poses have the errors of absolute ones: both lie in one frame.

    fields: in the order of a chunk's dimensions. first: offset of its first step from the anchor.
    """

    normalizer: Normalizer
    fields: Mapping[str, FieldContract]
    first: int
    parts: Mapping[str, slice] = field(default_factory=dict)

    @classmethod
    def of(cls, transform: RobotTransform, meanings: Mapping[str, FieldContract]) -> Self:
        """meanings: of stored fields, where their names do not tell."""
        parts, at = {}, 0
        for name, dims in transform.action_dims.items():
            parts[name] = slice(at, at + dims)
            at += dims
        fields = {name: _meaning(name, meanings) for name in parts}
        first = -transform.inputs.action_past
        return cls(normalizer=transform.normalizer, fields=fields, first=first, parts=parts)

    @property
    def kinds(self) -> list[str]:
        """Names of the errors that there are."""
        return sorted({kind_of(meaning) for meaning in self.fields.values()})

    @property
    def gripper(self) -> str:
        """What a gripper's error is a share of; "" where there is none, or it differs."""
        found = {
            RANGE if one.open is None else STROKE
            for one in self.fields.values()
            if kind_of(one) == "gripper"
        }
        return found.pop() if len(found) == 1 else ""

    def errors(
        self, chunks: np.ndarray, actions: np.ndarray, mask: np.ndarray
    ) -> dict[str, ActionErrors]:
        """By kind, summed over the fields of that kind. chunks [n,B,K,A], actions [B,K,A]
        normalised; mask bool [B,K,A]."""
        found: dict[str, ActionErrors] = {}
        for name, where in self.parts.items():
            kind, valid = kind_of(self.fields[name]), mask[..., where].all(axis=-1)
            error = np.zeros(chunks.shape[:3])
            said, shown = chunks[..., where], actions[..., where]
            if kind != "other":
                said, shown = self._raw(name, said), self._raw(name, shown)
            error[:, valid] = self._apart(name, kind, said[:, valid], shown[valid])
            before = found.get(kind, ActionErrors(error=np.zeros(()), valid=np.zeros((), int)))
            found[kind] = ActionErrors(error=before.error + error, valid=before.valid + valid)
        return found

    def _apart(self, name: str, kind: str, said: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """said [n,V,D], shown [V,D] → [n,V], of the V valid steps."""
        meaning = self.fields[name]
        scale = UNITS[meaning.unit][1] if meaning.unit else 1.0
        if kind == "position_mm":
            apart: np.ndarray = np.linalg.norm(said - shown, axis=-1) * scale * 1000
            return apart
        if kind == "rotation_deg":
            return _angle(_matrices(said * scale, meaning), _matrices(shown * scale, meaning))
        apart = np.abs(said - shown).mean(axis=-1)
        if kind == "joints_deg":
            return apart * scale * _RADIAN
        return apart / self._stroke(name, meaning) if kind == "gripper" else apart

    def _raw(self, name: str, values: np.ndarray) -> np.ndarray:
        """In the field's units; values [..., K, D]."""
        return self.normalizer.denormalize(name, np.asarray(values, np.float64), self.first)

    def _stroke(self, name: str, meaning: FieldContract) -> float:
        if meaning.open is not None and meaning.closed is not None:
            return abs(meaning.open - meaning.closed)
        return 2 * float(self.normalizer[name].scale.max())


def _meaning(name: str, meanings: Mapping[str, FieldContract]) -> FieldContract:
    stored = name.removesuffix(RELATIVE)
    return meanings.get(stored) or canonical_field(stored)


def kind_of(meaning: FieldContract) -> str:
    """The kind of error that a field has."""
    measures = UNITS[meaning.unit][0] if meaning.unit else ""
    if meaning.quantity == "position" and measures == "length":
        return "position_mm"
    if meaning.quantity == "rotation":
        return "rotation_deg"
    if meaning.quantity == "joints" and measures == "angle":
        return "joints_deg"
    return "gripper" if meaning.quantity == "gripper" else "other"


def _matrices(values: np.ndarray, meaning: FieldContract) -> np.ndarray:
    """R [...,3,3]; the first rows of what is called a matrix, for a policy's is none to the last
    digit. NaN where the numbers are no rotation at all, as an untrained policy's may be."""
    assert meaning.form is not None  # a rotation has one
    form: RotationForm = "rot6d_rows" if meaning.form == "matrix" else meaning.form
    given = values[..., :6] if meaning.form == "matrix" else values
    try:
        return to_matrix(given, form)
    except FoundryError:
        rows = [_matrix(row, form) for row in given.reshape(-1, given.shape[-1])]
        return np.stack(rows).reshape(*given.shape[:-1], 3, 3)


def _matrix(values: np.ndarray, form: RotationForm) -> np.ndarray:
    try:
        return to_matrix(values, form)
    except FoundryError:
        return np.full((3, 3), np.nan)


def _angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Degrees between rotations, exact for small ones, which an arccos of the trace is not; half a
    turn where one is none."""
    chord = np.linalg.norm(one - other, axis=(-2, -1)) / (2 * math.sqrt(2))
    return 2 * np.arcsin(np.minimum(np.nan_to_num(chord, nan=1.0), 1.0)) * _RADIAN
