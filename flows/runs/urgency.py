"""Which stage goes first where CPUs are short: the one that begins the longest chain of stages, for
a run lasts as long as that."""

from collections.abc import Collection, Mapping, Sequence

_UNKNOWN_SECONDS = 30.0
"""Of a stage of which no plan can say how long it takes: trainings can be told by arithmetic."""


class Urgencies:
    """needs: stage → those of the same walk that it waits for, upstream first. seconds: how long
    each takes, as far as anybody knows."""

    def __init__(
        self,
        needs: Mapping[str, Sequence[str]] = {},
        seconds: Mapping[str, float | None] = {},
    ) -> None:
        self._needs = needs
        self._chain: dict[str, float] = {}
        for name in reversed(list(needs)):
            own = seconds.get(name)
            after = [self._chain[one] for one, needed in needs.items() if name in needed]
            self._chain[name] = max(after, default=0.0) + (_UNKNOWN_SECONDS if own is None else own)

    def of(self, name: str) -> float:
        """Seconds from the stage's start to the end of the longest chain that it begins."""
        return self._chain.get(name, 0.0)

    def at_once(self) -> list[str]:
        """The stages that wait for none."""
        return [name for name, needed in self._needs.items() if not needed]

    def begin_after(self, name: str, done: Collection[str]) -> list[str]:
        """The stages that waited for `name` and for nothing that is not done."""
        return [
            one
            for one, needed in self._needs.items()
            if name in needed and all(up in done for up in needed)
        ]
