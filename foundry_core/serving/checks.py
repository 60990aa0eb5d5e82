"""An observation that came from anywhere against what the policy needs, before it joins a batch."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from foundry_core.config.suggest import near
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, ExamContract, PolicyContract
from foundry_core.data.images import MAX_PIXELS
from foundry_core.data.robot.rotations import from_matrix
from foundry_core.errors import FoundryError

MOST_TEXT = 4096
_UNKNOWN_SIZE = (224, 224)
_MOST_KEYS = 8


def check_observation(
    seen: Mapping[str, Any], contract: PolicyContract, absent: frozenset[str] = frozenset()
) -> None:
    """FoundryError, one line with both values, for the first thing that is missing or of another
    form than the contract says. absent: fields that this robot lacks. `unread` in it: keys that a
    client sent and nothing reads, which are named where something is missing."""
    images, lowdim, text = seen["images"], seen["lowdim"], seen["instruction"]
    unread = seen.get("unread", ())
    for name, camera in contract.cameras.items():
        if name not in images:
            shown = _sent(images, unread, "no camera")
            wanted = f"the policy looks through {', '.join(contract.cameras)}"
            message = f"camera {name!r} is missing: the observation shows {shown}; {wanted}"
            raise FoundryError(message, _renamed(name, {*images} - {*contract.cameras}, unread))
        _check_picture(name, images[name], camera)
    for name, field in contract.observes.items():
        if name in absent:
            continue
        if name not in lowdim:
            measured = _sent(lowdim, unread, "no field")
            wanted = (
                f"the policy reads {', '.join(n for n in contract.observes if n not in absent)}"
            )
            message = f"field {name!r} is missing: the observation measures {measured}; {wanted}"
            raise FoundryError(message, _renamed(name, {*lowdim} - {*contract.observes}, unread))
        _check_field(name, lowdim[name], field)
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        shown = f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
        raise FoundryError(f"the instruction is {shown}", f"text of at most {MOST_TEXT} characters")


def _sent(known: Iterable[str], unread: Iterable[str], none: str) -> str:
    """What came, for people: names that are read, and keys that are not."""
    shown = ", ".join(sorted(known)) or none
    listed = sorted(unread)
    more = "" if len(listed) <= _MOST_KEYS else f" and {len(listed) - _MOST_KEYS} more"
    keys = ", ".join(f"{key:.80}" for key in listed[:_MOST_KEYS]) + more
    return f"{shown} (sent, and read as nothing: {keys})" if listed else shown


def _renamed(name: str, others: Iterable[str], unread: Iterable[str]) -> str:
    """The hint: which of what came under another name is probably meant. Prefixes of a protocol's
    keys tell nothing of it."""
    ends = {key.rpartition("/")[2]: key for key in (*others, *unread)}
    found = near(name, ends)
    if not found:
        return "send it under its own name, or serve by a mapping that names your key"
    keys = [ends[end] for end in found]
    own = keys[0].removesuffix(found[0]) + name
    listed = " or ".join(map(repr, keys))
    return f"is it {listed}? Send that as {own!r}, or serve by a mapping that names your key"


def _check_picture(name: str, picture: Any, camera: CameraContract) -> None:
    shape = getattr(picture, "shape", None)
    kind = getattr(picture, "dtype", type(picture).__name__)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        raise FoundryError(
            f"camera {name!r} is {kind} {list(shape or ())}, not uint8 [H, W, 3]",
            "send pictures of whole numbers from 0 to 255, RGB",
        )
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise FoundryError(f"camera {name!r} is uint8 {list(picture.shape)}, not [H, W, 3]")
    if picture.shape[0] * picture.shape[1] > MAX_PIXELS:
        raise FoundryError(f"camera {name!r} has {picture.shape[:2]} pixels, at most {MAX_PIXELS}")
    size = (picture.shape[0], picture.shape[1])
    if camera.drawn is not None and size not in (camera.drawn, camera.size):
        raise FoundryError(
            f"camera {name!r} shows {size[0]}x{size[1]}, the policy's data were drawn at "
            f"{camera.drawn[0]}x{camera.drawn[1]}",
            "show pictures of that size: a resized picture is another picture",
        )


def _check_field(name: str, values: Any, field: FieldContract) -> None:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise FoundryError(f"field {name!r} is no numbers") from None
    if numbers.ndim != 1 or (field.dims and len(numbers) != field.dims):
        wanted = field.dims or "D"
        raise FoundryError(f"field {name!r} has shape {list(numbers.shape)}, not [{wanted}]")
    if not np.isfinite(numbers).all():
        raise FoundryError(f"field {name!r} is not finite: {numbers.tolist()}")


def own_exam(contract: PolicyContract) -> ExamContract:
    """An exam that means by every name what the policy means: nothing is converted."""
    return ExamContract(hz=contract.hz, observes=contract.observes, commands=contract.commands)


def blank_observation(contract: PolicyContract) -> dict[str, Any]:
    """Black pictures and a robot at its origin, in the policy's own meanings."""
    lowdim = {}
    for name, field in contract.observes.items():
        values = np.zeros(field.dims or 1)
        if field.form is not None:
            values = from_matrix(np.eye(3), field.form)
        lowdim[name] = values
    images = {
        name: np.zeros((*(camera.drawn or camera.size or _UNKNOWN_SIZE), 3), np.uint8)
        for name, camera in contract.cameras.items()
    }
    return {"images": images, "lowdim": lowdim, "instruction": ""}
