"""What the formats of recorded robots share: the rate and the words that their files may lack."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from foundry_core.config.canonical import OmitWhen
from foundry_core.data.contract.rates import rates_agree
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import PathSource, RobotFormat
from foundry_core.data.sources.files import find_files
from foundry_core.errors import FoundryError


class Recorded(RobotFormat, PathSource):
    """Base of the formats that hold recordings of robots under the names of their makers."""

    hz: float | None = Field(None, gt=0, description="control rate, where the files hold none")
    instruction: str = Field("", description="of every episode whose files hold none")
    depth_unit: Annotated[Literal["m", "cm", "mm"] | None, OmitWhen(None)] = Field(
        None, description="of depth; null: m of floats, mm of whole numbers"
    )

    def contract(self) -> DataContract:
        return DataContract(hz=self.hz)

    def files(self, endings: tuple[str, ...]) -> list[tuple[str, Path]]:
        """(name below the root, path) of those with one of the endings; episode_2 before _10."""
        found = find_files(self.path, endings, odd=True)
        above = self.root.parent if self.root.is_file() else self.root
        named = [(file.relative_to(above).as_posix(), file) for file in found]
        return sorted(named, key=lambda one: natural(one[0]))

    def rate(self, stated: float | None) -> float:
        """What the file states, else the recipe. FoundryError where they contradict each other."""
        hz = stated or self.hz
        if stated and self.hz and not rates_agree(stated, self.hz):
            raise FoundryError(
                f"the source's hz is {self.hz:g}, its files state {stated:g} Hz",
                "leave hz of the source out: it is for files that hold none",
            )
        if hz is None:
            raise FoundryError(
                f"{self.path!r} holds no control rate", "set the source's hz, as in hz: 20"
            )
        return hz

    def words(self, found: Iterable[str]) -> dict[str, list[str]]:
        """Instructions by kind: those of the file that are not empty, else the recipe's."""
        texts = list(dict.fromkeys(text.strip() for text in found if text.strip()))
        return {"original": texts or [text for text in [self.instruction] if text]}


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts names by the numbers in them: demo_2 before demo_10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def episode_id(name: str) -> str:
    """A ref's name as keys of samples may be called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
