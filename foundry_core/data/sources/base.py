"""What a raw format is: the config that a recipe's `source` holds, which also reads it.

Three open sets (foundry_core/config/registry.py), one file per format: text/, captions/, robot/.
A file defines one config class and ends in `FORMAT = <that class>`; its name is the format's.
Planning imports these files, so NumPy, Arrow and their like are imported inside the methods.

A source splits into pieces (`SourceRef`), which workers read one by one. The pieces and their order
depend on the source alone, never on the number of workers.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field

from foundry_core.config.canonical import Location
from foundry_core.config.registry import OneOf, Registry
from foundry_core.data.contract.statements import DataContract
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint, is_remote
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.data.robot.episodes import Episode


MAX_DOCUMENT = 1 << 26
"""Bytes of one text, and of one picture: more is one skip, and never in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRef:
    """A piece of a source that one worker reads at once: files, or a range of one file.

    name: what reports call it. start, stop: bytes, lines, members, row groups or episodes, as the
    format has them; stop -1 is the end.
    """

    name: str
    files: tuple[str, ...]
    start: int = 0
    stop: int = -1

    @property
    def path(self) -> Path:
        return Path(self.files[0])


class Reads(NamedTuple):
    """files: all files and folders that reading a piece opens. facts: JSON of what reaches it out
    of files that it shares with others, such as its line of an index."""

    files: tuple[str, ...]
    facts: Any = None


@dataclass(frozen=True, kw_only=True)
class Held:
    """What each episode of a source holds, as the source states it. dims: numbers per step of each
    field. names: what a field's dimensions are called, one by one. cameras, depth: their names."""

    dims: Mapping[str, int]
    names: Mapping[str, tuple[str, ...]]
    cameras: tuple[str, ...]
    depth: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text; `tokens` (uint32) instead, where the source was tokenised by others."""

    id: str
    text: str = ""
    tokens: "np.ndarray | None" = None


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """images: {name: file bytes}; "image" where the source names no camera."""

    id: str
    images: dict[str, bytes]
    caption: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """What could not be read, and why: counted, recorded, and limited by the recipe."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """The vocabulary that a source was tokenised with by others."""

    vocab_size: int
    eos_id: int


class RawFormat(Config):
    """Base of all formats. A class that names its `format` defines every abstract method; one that
    does not is refused when its module is imported."""

    format: str
    # Name, below its root, of the file that tells a data set of the format; "" where none does.
    mark: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        missing = sorted(cls.__abstractmethods__)
        if "format" in cls.__annotations__ and missing:
            raise FoundryError(
                f"{cls.__module__}.{cls.__name__} defines no {' and no '.join(missing)}",
                "foundry_core/data/sources/base.py says what each of them gives",
            )

    @classmethod
    @abstractmethod
    def options(cls, source: str) -> dict[str, Any]:
        """The fields that SRC of `foundry data convert --from FORMAT SRC DST` stands for."""

    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """{what: digest} of all that is read: equal contents are equal, wherever they lie."""

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Whether a file or folder looks like the format; a cheap look, for `data inspect`."""
        return False

    @classmethod
    def lacks(cls, path: Path) -> str:
        """What is missing in a folder that else looks like the format; "" for any other."""
        return ""

    @property
    def named(self) -> Mapping[str, str]:
        """What of `identity` is no content: names that reach ids and reports."""
        return {}

    def reads(self, ref: SourceRef) -> "Reads | None":
        """What a piece is made of, beside the options, `named` and `contract`: it is converted
        again when something of it changed. None: the whole source, which is right for any format
        and repeats more than it must."""
        return None

    @property
    def remote(self) -> str | None:
        """Address of what is to be fetched before it is read; None for what lies here."""
        return None

    def fetched(self, path: str) -> Self:
        """This source with its files copied to `path`. Asked of remote sources only."""
        raise NotImplementedError(f"{self.format} sources are not fetched")


class PathSource(RawFormat):
    """Base of the formats that lie in a file or folder, here or on S3."""

    path: Location[str] = Field(
        description="file or folder; identified by content, a single file by its name too"
    )

    @classmethod
    def options(cls, source: str) -> dict[str, Any]:
        return {"path": source if is_remote(source) else str(Path(source).absolute())}

    @property
    def root(self) -> Path:
        return Path(self.path).expanduser()

    def inside(self, file: Path) -> str:
        """What a file of the source is called in ids and reports, wherever the source lies."""
        return file.relative_to(self.root).as_posix() if self.root.is_dir() else file.name

    def identity(self) -> Mapping[str, str]:
        return {self.format: fingerprint(self.path), **self.named}

    @property
    def named(self) -> Mapping[str, str]:
        # In sample keys and reports, as the names in a folder are.
        single = self.remote is None and self.root.is_file()
        return {"file name": self.root.name} if single else {}

    @property
    def remote(self) -> str | None:
        return self.path if is_remote(self.path) else None

    def fetched(self, path: str) -> Self:
        return self.model_copy(update={"path": path})


class TextFormat(RawFormat):
    """Documents."""

    @abstractmethod
    def refs(self) -> list[SourceRef]:
        """The source's pieces in canonical order. FoundryError where there is nothing."""

    @abstractmethod
    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        """The documents of a piece. A file that is damaged is Broken where that shows. FoundryError
        for what no other file could mend: a recipe that does not fit the source."""

    def fields(self) -> Mapping[str, str]:
        """Name → type of what else a record of the source holds, for `data inspect`."""
        return {}

    @property
    def token_ids(self) -> TokenIds | None:
        """The vocabulary, where documents are token ids already; None for texts."""
        return None


class CaptionFormat(RawFormat):
    """Images with captions."""

    @abstractmethod
    def refs(self) -> list[SourceRef]:
        """The source's pieces in canonical order. FoundryError where there is nothing."""

    @abstractmethod
    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        """The captioned images of a piece. A file that is damaged is Broken where that shows."""

    def fields(self) -> Mapping[str, str]:
        """Name → type of what else a record of the source holds, for `data inspect`."""
        return {}


class RobotFormat(RawFormat):
    """Demonstrations of robots."""

    # Fields of the format that no robot measures and none is commanded → why they are there.
    bookkeeping: ClassVar[Mapping[str, str]] = {}

    def contract(self) -> DataContract:
        """What pictures and numbers mean, as far as it is known without reading episodes. Fields
        that it leaves out mean what their names tell (`canonical_field`)."""
        return DataContract()

    def holds(self) -> Held | None:
        """What its episodes hold, where that is stated apart from them; None where only reading one
        would tell. Asked while planning: it must be cheap."""
        return None

    @abstractmethod
    def episodes(self) -> list[SourceRef]:
        """One piece per episode, in canonical order. FoundryError where there is none."""

    @abstractmethod
    def read_episode(self, ref: SourceRef) -> "Episode":
        """Raises UnusableEpisode for one that is truncated or breaks a rule of the format."""


def _registry(kind: str, folder: str) -> Registry[Any]:
    return Registry(
        group=f"foundry.{kind}_formats",
        package=f"foundry_core.data.sources.{folder}",
        attribute="FORMAT",
        noun=f"{kind} format",
    )


TEXT_FORMATS: Registry[type[TextFormat]] = _registry("text", "text")
CAPTION_FORMATS: Registry[type[CaptionFormat]] = _registry("caption", "captions")
ROBOT_FORMATS: Registry[type[RobotFormat]] = _registry("robot", "robot")

TextSource = Annotated[TextFormat, OneOf(TEXT_FORMATS, "format")]
CaptionSource = Annotated[CaptionFormat, OneOf(CAPTION_FORMATS, "format")]
RobotSource = Annotated[RobotFormat, OneOf(ROBOT_FORMATS, "format")]
