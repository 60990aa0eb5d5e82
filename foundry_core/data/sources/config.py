"""Where raw data comes from, as recipes say it. Light: planning imports this.

A new raw format is one config class here, one reader file beside it, and one line in its `open_*`
function. Paths are locations: their content is what identifies a source, so they stay out of keys.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr

from foundry_core.config.canonical import Location
from foundry_core.data.sources.packages import documents_identity
from foundry_core.identity.sources import fingerprint, is_remote, normalized
from foundry_core.pipeline.stage import Config


class PathSource(Config):
    """Base of the sources that lie in a file or folder."""

    format: str
    path: Location[str] = Field(
        description="file or folder; identified by content, a single file by its name too"
    )

    def identity(self) -> Mapping[str, str]:
        found = {self.format: fingerprint(self.path)}
        path = Path(self.path).expanduser()
        if not is_remote(self.path) and path.is_file():
            found["file name"] = path.name  # in sample keys and reports, as those of a folder's
        return found

    def fetched(self, path: str) -> Self:
        """This source with its files copied to `path`."""
        return self.model_copy(update={"path": path})


class PackageDocs(Config):
    """Docstrings and documentation files of installed Python distributions: English that every
    installation has. Nothing is imported or run."""

    format: Literal["packages"] = "packages"
    packages: tuple[Annotated[str, AfterValidator(normalized)], ...] = Field(
        min_length=1, description="distribution names"
    )
    min_characters: int = Field(200, ge=1, description="leave out shorter documents")

    def identity(self) -> Mapping[str, str]:
        return {f"package {name}": documents_identity(name) for name in self.packages}


class JsonLines(PathSource):
    """.jsonl or .jsonl.gz files, one document per line under `field`."""

    format: Literal["jsonl"] = "jsonl"
    field: str = "text"


class PlainText(PathSource):
    """.txt and .md files, one document each."""

    format: Literal["txt"] = "txt"


class Parquet(PathSource):
    """.parquet files, one document per row of the string column `field`."""

    format: Literal["parquet"] = "parquet"
    field: str = "text"


class TextTars(PathSource):
    """Tars of documents; a member is plain text, or JSON {"text": ...} (whatever its extension
    says: published .json members hold plain text)."""

    format: Literal["text_tars"] = "text_tars"
    field: str = "text"


class TokenTars(PathSource):
    """Tars of `<key>.json.gz`, each a list of token ids, tokenised by others. Taken as one stream:
    no eos is added, so lists of context+1 ids become exactly the rows."""

    format: Literal["token_tars"] = "token_tars"
    vocab_size: int = Field(ge=2)
    eos_id: int = Field(ge=0)


TextSource = Annotated[
    PackageDocs | JsonLines | PlainText | Parquet | TextTars | TokenTars,
    Field(discriminator="format"),
]


class SceneFolder(PathSource):
    """A folder with `scenes.jsonl` (or another name): {"image": path | [paths], "caption": ...}."""

    format: Literal["scenes"] = "scenes"
    index: str = "scenes.jsonl"


class ImageCaptionTars(PathSource):
    """img2dataset tars: `<key>.jpg|png|webp` + `<key>.txt` + `<key>.json`."""

    format: Literal["img2dataset"] = "img2dataset"


CaptionSource = Annotated[SceneFolder | ImageCaptionTars, Field(discriminator="format")]


class Demonstrations(PathSource):
    """Episodes as the simulator stages record them (demos.json + episodes/<task>/<id>.tar)."""

    format: Literal["demonstrations"] = "demonstrations"


class Spartan(PathSource):
    """LBM "diffusion spartan" episodes below a root, task, or episode folder."""

    format: Literal["spartan"] = "spartan"
    _above: tuple[str, ...] | None = PrivateAttr(None)

    def identity(self) -> Mapping[str, str]:
        above = self.folders_above()
        return {**super().identity(), **({"folders above": "/".join(above)} if above else {})}

    def fetched(self, path: str) -> Self:
        copy = super().fetched(path)
        copy._above = self.folders_above()
        return copy

    def folders_above(self) -> tuple[str, ...]:
        """From the last `tasks` in the root's own path to the skill that follows it, as far as the
        path goes; nothing where `tasks` lies in the root."""
        if self._above is not None:
            return self._above
        path = self.path
        if not is_remote(path):
            path = os.path.abspath(os.path.expanduser(path))
            if os.path.isdir(os.path.join(path, "tasks")):
                return ()
        parts = path.rstrip("/").split("/")
        marks = [number for number, part in enumerate(parts) if part == "tasks"]
        return tuple(parts[marks[-1] : marks[-1] + 2]) if marks else ()


RobotSource = Annotated[Demonstrations | Spartan, Field(discriminator="format")]
