"""What a search asks of whoever chooses its variants.

A driver gets no store and no state of its own: it is asked and told in one order, which its seed
and what came out decide. So a search that was killed asks for the same again.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from flows.ablation.space import Change, Space
from foundry_core.config.registry import Registry


class Driver(ABC):
    """learns: whether what it is told changes what it asks for."""

    learns: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, space: Space, number: int, seed: int) -> None:
        """number: how many variants will be asked for. FoundryError for a space that it cannot
        search, and where a package of its own is not installed."""

    @abstractmethod
    def ask(self) -> tuple[Change, ...]:
        """The next variant. Several may be asked for before anything is told of them."""

    @abstractmethod
    def tell(self, asked: tuple[Change, ...], rate: float | None) -> None:
        """What became of a variant, in the order of asking. rate: its success, None where it
        failed or was the same as another one."""


DRIVERS: Registry[type[Driver]] = Registry(
    group="foundry.search_drivers",
    package="flows.ablation.drivers",
    attribute="DRIVER",
    noun="search driver",
)
