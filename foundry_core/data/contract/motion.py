"""What counts as motion of a stored field. No NumPy: planning imports this."""

import fnmatch
from collections.abc import Mapping

from foundry_core.config.suggest import nearest
from foundry_core.data.config import StillConfig
from foundry_core.data.contract.fields import UNITS, FieldContract
from foundry_core.errors import FoundryError

Meanings = Mapping[str, FieldContract]
_MOVING = ("position", "rotation", "joints", "gripper")
# By what a unit measures, in its SI unit: what sensors of resting arms show.
_LEAST = {"length": 1e-3, "angle": 1e-2}
_STROKE = 1e-2


def tolerances(meanings: Meanings, still: StillConfig) -> dict[str, float]:
    """Watched field → how far it may move within a still window, in its own unit. meanings: of the
    stored fields. FoundryError for a field that is not stored, a tolerance of none that is watched,
    and a field that nothing says a tolerance of."""
    grippers = [name for name, one in meanings.items() if one.quantity == "gripper"]
    if still.fields is None:
        watched = [name for name, one in meanings.items() if one.quantity in _MOVING]
    else:
        watched = list(dict.fromkeys((*still.fields, *grippers)))
    for name in watched:
        if name not in meanings:
            raise FoundryError(f"still.fields: {name!r} is not stored", nearest(name, meanings))
    if not watched:
        raise FoundryError(
            "still: no stored field is known to be a position, rotation, joint or gripper",
            "name some in still.fields, and in still.tolerance how far each may move",
        )
    for pattern in still.tolerance:
        if not fnmatch.filter(watched, pattern):
            raise FoundryError(
                f"still.tolerance: {pattern!r} is none of the watched fields {', '.join(watched)}",
                nearest(pattern, watched),
            )
    return {name: _tolerance(name, meanings[name], still.tolerance) for name in watched}


def _tolerance(name: str, meaning: FieldContract, stated: Mapping[str, float]) -> float:
    matching = [pattern for pattern in stated if fnmatch.fnmatchcase(name, pattern)]
    if matching:
        return stated[min(matching, key=lambda p: (p != name, -len(p), p))]
    if meaning.open is not None and meaning.closed is not None:
        return _STROKE * abs(meaning.open - meaning.closed)
    unit = meaning.unit or ("rad" if meaning.form is not None else "")
    if not unit:
        raise FoundryError(
            f"how far {name!r} may move within a still window is not known: it has no unit "
            f"({meaning.text()})",
            f"set still.tolerance: {{{name!r}: ...}}, or leave it out of still.fields",
        )
    measures, size = UNITS[unit]
    return _LEAST[measures] / size
