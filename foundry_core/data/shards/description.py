"""dataset.json: what a folder of shards says of itself. Written by conversions, checked by
`foundry data validate`; it may say more than is required of it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from foundry_core.config.validation import read_as, validate
from foundry_core.data.config import PoseGroup, Runs, WindowConfig
from foundry_core.data.contract.fields import FieldContract, canonical_field
from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.errors import FoundryError
from foundry_core.files import write_json
from foundry_core.pipeline.stage import Config

DESCRIPTION = "dataset.json"
Count = Annotated[int, Field(ge=1)]


class Description(Config):
    """Base of the three. weights: (samples, how often each is drawn beside others), run by run;
    of a robot's episodes (windows, ...)."""

    model_config = ConfigDict(extra="ignore")
    version: Literal[1] = 1
    weights: list[tuple[int, Annotated[float, Field(ge=0, allow_inf_nan=False)]]] | None = None

    @property
    def samples(self) -> int:
        """How many the shards hold."""
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        """Writes dataset.json."""
        write_json(folder / DESCRIPTION, self.model_dump(mode="json", exclude_none=True))


class TextDescription(Description):
    """tokenizer: digest of the one that encoded the documents; "" for tokens that others made."""

    format: Literal["foundry-text"] = "foundry-text"
    context: Count
    vocab_size: int = Field(ge=2)
    tokenizer: str = ""
    eos_id: int = Field(ge=0)
    pad_id: int | None = None
    tokens: int | None = None
    sequences: int = Field(ge=0)
    documents: int | None = None

    @property
    def samples(self) -> int:
        return self.sequences


class CaptionDescription(Description):
    """images: the names of the samples' images."""

    format: Literal["foundry-captions"] = "foundry-captions"
    images: list[str] = Field(min_length=1)
    sequences: Count

    @property
    def samples(self) -> int:
        return self.sequences


class CameraSize(Config):
    """In pixels."""

    model_config = ConfigDict(extra="ignore")
    height: Count
    width: Count


class RobotDescription(Description):
    """depth: sizes by camera. fields: dimensions of each stored field. lengths: steps of each
    episode, in order. anchors: windows of each, where some steps are none (`left_out` in
    metadata.json). tasks: episodes of each. contract: what pictures and numbers mean; null in
    shards that others made."""

    format: Literal["foundry-robot"] = "foundry-robot"
    layout: Literal["episode", "sample"]
    hz: float = Field(gt=0)
    cameras: dict[str, CameraSize]
    depth: dict[str, CameraSize] = {}
    fields: dict[str, int] = Field(min_length=1)
    relative: tuple[PoseGroup, ...] = ()
    window: WindowConfig
    image_steps: tuple[int, ...] = ()
    tasks: dict[str, int] = {}
    episodes: Count
    lengths: list[int] | None = None
    anchors: list[int] | None = None
    windows: Count
    contract: DataContract | None = None

    @property
    def stated(self) -> DataContract:
        """The contract; without one, what the names of the fields tell."""
        if self.contract is not None:
            return self.contract.model_copy(update={"hz": self.hz})
        return DataContract(
            hz=self.hz,
            cameras={name: CameraContract() for name in self.cameras},
            fields={name: canonical_field(name, dims) for name, dims in self.fields.items()},
        )

    @property
    def samples(self) -> int:
        return self.episodes if self.layout == "episode" else self.windows


def depth_member(picture: str) -> str:
    """The member with the depth of a picture, both named without their ending."""
    return f"{picture}.depth.png"


def left_out(metadata: bytes | memoryview) -> Runs:
    """Runs [first, stop) of steps that are no anchors, by an episode's metadata.json. ValueError
    where it is none."""
    runs = json.loads(bytes(metadata)).get("left_out", ())
    try:
        return tuple((int(first), int(stop)) for first, stop in runs)
    except TypeError:
        raise ValueError(f"left_out {runs!r} is no list of [first, stop]") from None


def field_meanings(info: Mapping[str, Any]) -> Mapping[str, FieldContract]:
    """Of the stored fields, by a dataset.json; none where it has no contract."""
    contract = info.get("contract")
    return validate(DataContract, contract, DESCRIPTION).fields if contract else {}


def read_robot(folder: Path) -> RobotDescription:
    """Of a folder of robot shards; FoundryError where it has none, or one of another form."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise FoundryError(
            f"{folder} has no {DESCRIPTION}: rate and cameras of its data are unknown",
            "convert the dataset with this product, or write one (foundry data validate checks it)",
        )
    found: RobotDescription = read_as(RobotDescription, path, "convert the dataset again")
    return found
