"""What a conversion saw, converted and skipped: nothing is dropped in silence."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.files import write_json

Skip = tuple[str, str]
_OWN_ID = re.compile(r"^episode '[^']*':? ")


class Report:
    """Counts items (documents, samples, episodes) and records each skipped one with its reason.

    More than `max_skipped` skips are an error that shows the first of them, or the one reason that
    all items have had so far.
    """

    def __init__(self, items: str, max_skipped: int) -> None:
        self._items, self._max_skipped = items, max_skipped
        self.converted = 0
        self.left_out: dict[str, int] = {}
        self.skipped: list[Skip] = []

    def add(self, converted: int, skipped: Iterable[Skip] = ()) -> None:
        """Counts a piece's items. Raises FoundryError when too many were skipped so far."""
        self.converted += converted
        self.skipped += skipped
        if len(self.skipped) > self._max_skipped:
            said = (
                f"{len(self.skipped)} {self._items} cannot be converted, the recipe allows "
                f"max_skipped = {self._max_skipped}"
            )
            reasons = {
                _OWN_ID.sub("", reason.removeprefix(f"{name}: ")) for name, reason in self.skipped
            }
            if len(reasons) == 1 and len(self.skipped) > 1 and not self.converted:
                raise FoundryError(
                    f"{said}; none could be, for one reason: {reasons.pop()}",
                    "correct what they share: the recipe (mapping, options of the source), or the "
                    "source",
                )
            shown = "; ".join(_line(name, reason) for name, reason in self.skipped[:3])
            more = len(self.skipped) - 3
            raise FoundryError(
                f"{said}: {shown}" + (f"; {more} more" * (more > 0)),
                "mend the source or the recipe, or raise max_skipped to leave them out",
            )

    def leave_out(self, reason: str, count: int) -> None:
        """Items that the recipe itself excludes (failures, a limit): counted, not an error."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def write(self, folder: Path, **details: Any) -> None:
        """`report.json`, with details that are JSON. A conversion that yields nothing is an error,
        not an empty data set."""
        seen = self.converted + len(self.skipped) + sum(self.left_out.values())
        if not self.converted:
            raise FoundryError(
                f"0 of {seen} {self._items} were converted"
                + "".join(f"; {n} left out: {why}" for why, n in sorted(self.left_out.items())),
                "the data set would be empty: check source and recipe",
            )
        write_json(
            folder / "report.json",
            {
                "items": self._items,
                "seen": seen,
                "converted": self.converted,
                "left_out": self.left_out,
                "skipped": [{"id": name, "reason": reason} for name, reason in self.skipped],
                **details,
            },
        )


def _line(name: str, reason: str) -> str:
    """A skip, whose reason need not repeat the name."""
    own, reason = f"episode {name!r}", reason.removeprefix(f"{name}: ")
    return f"{name}: {_OWN_ID.sub('', reason) if reason.startswith(own) else reason}"
