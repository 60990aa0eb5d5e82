"""Stored pictures of an episode, made when they are written: an episode of any length takes the
memory of a few."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import overload


class Stored(Sequence[bytes]):
    """The files of one camera, by step. make: step → file; it is asked in the order of the steps as
    far as windows go forward, since films are decoded so. reach: how many steps apart a sample
    shows; so many files are kept."""

    def __init__(self, length: int, make: Callable[[int], bytes], reach: int = 0) -> None:
        self._length, self._make, self._reach = length, make, reach
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, step: int) -> bytes: ...

    @overload
    def __getitem__(self, step: slice) -> list[bytes]: ...

    def __getitem__(self, step: int | slice) -> bytes | list[bytes]:
        if isinstance(step, slice):
            return [self[one] for one in range(self._length)[step]]
        place = range(self._length)[step]
        if place not in self._kept:
            last = next(reversed(self._kept), place - 1)
            near = last < place <= last + self._reach
            for one in range(last + 1 if near else place, place + 1):
                self._kept[one] = self._make(one)
                if len(self._kept) > self._reach + 1:
                    self._kept.popitem(last=False)
        return self._kept[place]
