"""Draws at random: every variant is as likely, whatever came out before."""

from flows.ablation.drivers.base import Driver
from flows.ablation.space import Change, Space, draw


class RandomDriver(Driver):
    learns = False

    def __init__(self, space: Space, number: int, seed: int) -> None:
        self._left = iter(draw(space, number, seed))

    def ask(self) -> tuple[Change, ...]:
        return next(self._left)

    def tell(self, asked: tuple[Change, ...], rate: float | None) -> None:
        pass


DRIVER = RandomDriver
