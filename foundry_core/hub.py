"""Datasets on the Hugging Face hub, by commit: hf://datasets/ORG/NAME@COMMIT[/place].

The place is a file, a folder, or a pattern of names (`data/train-*.parquet`). Only a commit says
which bytes are meant, so nothing else is taken. Endpoint and token come from HF_ENDPOINT and
HF_TOKEN, as everywhere with the hub; neither is ever written down.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_core.errors import FoundryError
from foundry_core.files import is_hidden, sha256_hex, sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SCHEME = "hf://"
_REPOSITORY = re.compile(r"hf://datasets/([\w.-]+(?:/[\w.-]+)?)(?:@([^/]*))?(?:/(.*))?")
_COMMIT = re.compile("[0-9a-f]{40}")
_PATTERN = re.compile(r"[*?\[]")
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class HubAddress:
    """inner: file, folder or pattern in the repository; "" is all of it."""

    repository: str
    commit: str
    inner: str

    def __str__(self) -> str:
        return f"{_SCHEME}datasets/{self.repository}@{self.commit}/{self.inner}".rstrip("/")

    @property
    def pattern(self) -> bool:
        return bool(_PATTERN.search(self.inner))

    @property
    def identity(self) -> str:
        """64 hex digits; the repository's name is no content."""
        return sha256_hex(f"hub\0{self.commit}\0{self.inner}")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a commit. sha256 where it is stored by that, else its Git blob's sha1."""

    name: str
    size: int
    sha256: str | None
    blob: str


def is_hub(address: str) -> bool:
    return address.startswith(_SCHEME)


def parse(address: str) -> HubAddress:
    """FoundryError for what is no dataset at a commit."""
    found = _REPOSITORY.fullmatch(address)
    if found is None:
        raise FoundryError(
            f"{address!r} is no dataset on the hub", "hf://datasets/ORG/NAME@COMMIT/folder"
        )
    repository, commit, inner = found.groups()
    if not _COMMIT.fullmatch(commit or ""):
        raise FoundryError(
            f"{address!r} names {commit or 'no revision'}, which may be other data tomorrow: a "
            "commit of 40 hex digits is needed",
            f"https://huggingface.co/datasets/{repository}/commits lists them",
        )
    inner = (inner or "").strip("/")
    if any(part in ("", ".", "..") for part in inner.split("/")) and inner:
        raise FoundryError(f"{address!r} is no plain place in a repository", "e.g. .../data")
    return HubAddress(repository=repository, commit=commit, inner=inner)


def listed(address: HubAddress) -> list[HubFile]:
    """The files at an address, by name; hidden ones (a leading dot) are left out. FoundryError
    where there is none, and for whatever the hub answers."""
    from huggingface_hub.hf_api import RepoFile

    api = _api()
    where: dict[str, Any] = {
        "repo_id": address.repository,
        "repo_type": "dataset",
        "revision": address.commit,
    }
    with _explained(address):
        if address.inner and not address.pattern:
            found = list(api.get_paths_info(paths=[address.inner], **where))
            if not any(isinstance(one, RepoFile) for one in found):
                found = list(
                    api.list_repo_tree(path_in_repo=address.inner, recursive=True, **where)
                )
        else:
            folder = _PATTERN.split(address.inner)[0].rpartition("/")[0]
            found = list(api.list_repo_tree(path_in_repo=folder, recursive=True, **where))
    files = [
        HubFile(
            name=one.path,
            size=one.size,
            sha256=one.lfs.sha256 if one.lfs else None,
            blob=one.blob_id,
        )
        for one in sorted(found, key=lambda one: one.path)
        if isinstance(one, RepoFile)
        and not any(map(is_hidden, one.path.split("/")))
        and (not address.pattern or fnmatchcase(one.path, address.inner))
    ]
    if not files:
        raise FoundryError(f"{str(address)!r} holds no files", "check folder and pattern")
    return files


def download(address: HubAddress, file: HubFile, folder: Path) -> Path:
    """A file of a commit as `folder`/<its name>; what is there already, and whole, is not fetched
    again. FoundryError where its bytes are not those of the commit."""
    from huggingface_hub import hf_hub_download

    with _explained(address):
        path = Path(
            hf_hub_download(
                address.repository,
                file.name,
                repo_type="dataset",
                revision=address.commit,
                local_dir=folder,
                endpoint=_endpoint(),
            )
        )
    if file.sha256 is not None:
        whole = sha256_of(path) == file.sha256
    else:
        whole = _blob_of(path) == file.blob
    if not whole:
        path.unlink()
        raise FoundryError(
            f"{file.name!r} of {str(address)!r} came with other bytes than the commit has",
            "run again; behind a proxy or mirror, ask whoever keeps it",
        )
    return path


def _blob_of(path: Path) -> str:
    """What Git calls a file of these bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _api() -> "HfApi":
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=_endpoint())


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def _explained(address: HubAddress) -> Iterator[None]:
    """The library raises its own errors, its HTTP client's, and the system's."""
    try:
        yield
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise FoundryError(
            f"{str(address)!r} cannot be fetched: {type(error).__name__}: {first}",
            "check name, commit and network (HF_ENDPOINT); a dataset that is gated needs HF_TOKEN, "
            "and HF_HUB_OFFLINE must not be set",
        ) from error
