"""Rules that the sizes of every architecture share."""

from typing import Any, TypeVar

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

T = TypeVar("T")
# Logits that the next-token loss makes at once on a device.
SLICE_ELEMENTS_DEVICE = 1 << 27


def positive(default: Any = ..., **kwargs: Any) -> Any:
    """A pydantic field of a size: at least 1."""
    return Field(default, ge=1, **kwargs)


def check_multiple(name: str, value: int, of_name: str, of: int) -> None:
    """ValueError, which pydantic reports at the config, unless `of` divides `value`."""
    if value % of:
        raise ValueError(f"{name} {value} is not a multiple of {of_name} {of}")


def swiglu_dim(dim: int) -> int:
    """256·ceil(floor(8·dim/3)/256): two thirds of 4·dim, rounded up to a multiple of 256."""
    return 256 * -(-(8 * dim // 3) // 256)


def required(config: Config, name: str, value: T | None) -> T:
    """value, the field `name` of a config; FoundryError when it is still null."""
    if value is None:
        raise unresolved(config, name)
    return value


def unresolved(config: Config, name: str) -> FoundryError:
    """The error about a field that is null where a module is built."""
    return FoundryError(
        f"{type(config).__name__}.{name} is null: a model cannot be built without it",
        "the training stage fills it in; give it explicitly when building by hand",
    )


def kind_of(config: Config) -> str:
    """The tag of a config of a model."""
    return str(getattr(config, "kind", type(config).__name__))
