"""Whether a mapping fits what it is to be applied to: fields, cameras and widths that are there.
No NumPy: planning imports this, and `apply` refuses by the same rules."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from foundry_core.config.suggest import nearest
from foundry_core.data.mapping.config import Part, RobotMapping
from foundry_core.data.sources.base import Held
from foundry_core.errors import FoundryError


def check_fit(mapping: RobotMapping, held: Held) -> None:
    """FoundryError that names the entry of the mapping which asks for a field, a camera or
    dimensions that the source does not hold."""
    for name, camera in mapping.cameras.items():
        with entry(f"cameras.{name}"):
            check_there("camera", camera.source, held.cameras)
            if camera.depth:
                check_there("depth", camera.depth, held.depth)
    for place, part, wanted in mapping.parts():
        with entry(place):
            span(part, held.dims, wanted)


def span(part: Part, dims: Mapping[str, int], wanted: int | None = None) -> tuple[int, int]:
    """[first, end) of the part's field. dims: of each raw field. wanted: how many it must be."""
    check_there("field", part.source, dims)
    first, end = part.dims or (0, dims[part.source])
    if end > dims[part.source] or wanted not in (None, end - first):
        raise FoundryError(
            f"dims [{first}, {end}) of {part.source!r}, which has {dims[part.source]}"
            + (f", are not {wanted}" if wanted not in (None, end - first) else ""),
            "correct the mapping's dims",
        )
    return first, end


def check_there(what: str, source: str, known: Iterable[str]) -> None:
    """FoundryError with the nearest of those that are known."""
    if source not in known:
        raise FoundryError(f"there is no {what} {source!r}", nearest(source, known))


@contextmanager
def entry(place: str) -> Iterator[None]:
    """What is wrong in here names this entry of the mapping."""
    try:
        yield
    except FoundryError as error:
        raise FoundryError(f"mapping.{place}: {error.message}", error.hint) from error
