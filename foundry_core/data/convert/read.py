"""Episodes, documents and captioned images from a format's reader, whatever is wrong with its
bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.shards.write import key_fault
from foundry_core.data.sources.base import (
    MAX_DOCUMENT,
    Broken,
    Captioned,
    CaptionFormat,
    Document,
    RobotFormat,
    SourceRef,
    TextFormat,
)
from foundry_core.errors import FoundryError, printable

MAX_STEPS = 1_000_000
MAX_VALUES = 200_000_000
"""Of low-dimensional numbers in one episode: 1.6 GB."""
T = TypeVar("T", Document, Captioned)


def read_bounded(source: RobotFormat, ref: SourceRef) -> Episode:
    """The episode. UnusableEpisode where it has no steps, is beyond the bounds, holds fields of no
    numbers or texts that cannot be written, has no rate or no id that names a sample; and whatever
    exception the reader raised."""
    with counted(ref.name):
        episode = source.read_episode(ref)
        _check(episode)
    return episode


@contextmanager
def counted(where: str) -> Iterator[None]:
    """Any exception becomes UnusableEpisode, so that a damaged file is one counted skip whatever
    library stumbled over it."""
    try:
        yield
    except UnusableEpisode:
        raise
    # MemoryError is what a lying header asks for; a real lack of memory kills the process.
    except (Exception, RecursionError, MemoryError) as error:
        ours = isinstance(error, FoundryError)
        reason, hint = (error.message, error.hint) if ours else (repr(error), "")
        raise UnusableEpisode(
            f"{where} is not readable: {reason}", hint or "fetch it again"
        ) from error


def read_documents(source: TextFormat, ref: SourceRef) -> Iterator[Document | Broken]:
    """The documents of a piece. What the reader stumbles over, a FoundryError excepted, ends the
    piece as one Broken; a text beyond MAX_DOCUMENT, or one that is no Unicode, is one too."""
    for item in _guarded(source.read(ref), ref):
        reason = item.reason if isinstance(item, Broken) else _unusable(item.text)
        yield _broken(item.id, reason) if reason else item


def read_captioned(source: CaptionFormat, ref: SourceRef) -> Iterator[Captioned | Broken]:
    """The captioned images of a piece, by the same rules."""
    for item in _guarded(source.items(ref), ref):
        if isinstance(item, Broken):
            yield _broken(item.id, item.reason)
        elif reason := _unusable(item.caption):
            yield _broken(item.id, f"its caption {reason}")
        else:
            yield item


def _broken(name: str, reason: str) -> Broken:
    """Names and keys of the source are in both, whatever they hold."""
    return Broken(id=printable(name), reason=printable(reason))


def _guarded(items: Iterator[T | Broken], ref: SourceRef) -> Iterator[T | Broken]:
    last = ""
    try:
        for item in items:
            last = f" behind {item.id}"
            yield item
    except FoundryError:
        raise
    except (Exception, RecursionError, MemoryError) as error:
        yield Broken(id=ref.name, reason=f"not readable{last}: {error!r}; what follows is lost")


def _unusable(text: object) -> str:
    """Why a text cannot be converted; "" for one that can."""
    if not isinstance(text, str):
        return f"is of type {type(text).__name__}, not a text"
    if len(text) > MAX_DOCUMENT:
        return f"has {len(text)} characters, at most {MAX_DOCUMENT} are read"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds half a character ({text[error.start]!a} at {error.start})"
    return ""


def _check(episode: Episode) -> None:
    _check_texts(episode)
    where = f"episode {episode.id!r}"
    for name, array in episode.lowdim.items():
        if np.asarray(array).dtype.kind not in "fiub":
            raise UnusableEpisode(
                f"{where}: field {name!r} holds {np.asarray(array).dtype}, not numbers", "mend it"
            )
    if not episode.lowdim or episode.length == 0:
        raise UnusableEpisode(f"{where} has no steps", "remove it")
    values = sum(array.size for array in episode.lowdim.values())
    if episode.length > MAX_STEPS or values > MAX_VALUES:
        raise UnusableEpisode(
            f"{where} has {episode.length} steps and {values} numbers, at most "
            f"{MAX_STEPS} and {MAX_VALUES} are read",
            "cut it into several",
        )
    hz = episode.hz
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not 0 < hz < 1e6:
        raise UnusableEpisode(f"{where} has the rate {hz!r}", "hz is a number of Hz")
    if episode.success not in (None, True, False):
        raise UnusableEpisode(
            f"{where} has the success {episode.success!r}", "it is true, false or null"
        )


def _check_texts(episode: Episode) -> None:
    if not isinstance(episode.id, str) or "/" in episode.id or key_fault(episode.id):
        raise UnusableEpisode(
            f"episode id {episode.id!r} cannot name a file and a sample",
            "use letters, digits, - and _",
        )
    spoken = [(kind, text) for kind, texts in episode.instructions.items() for text in texts]
    for kind, text in [("task", episode.task), *spoken]:
        if not all(isinstance(one, str) and _printable(one) for one in (kind, text)):
            raise UnusableEpisode(
                f"episode {episode.id!r} has the text {text!r} for {kind!r}",
                "texts are valid Unicode",
            )
    for kind, text in spoken:
        if not text.strip():
            raise UnusableEpisode(
                f"episode {episode.id!r}: an instruction {kind!r} is empty",
                "write one, or remove it",
            )


def _printable(text: str) -> bool:
    """No lone surrogates and no control characters."""
    return text.isprintable() or all(
        character.isprintable() or character in "\n\t" for character in text
    )
