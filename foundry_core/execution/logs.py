"""The log of a stage: what its processes print, less the secrets of the environment.

A stage prints what it likes, the address that it reads from with its password too. Masked is what
`foundry_core.masking.mask_text` finds, line by line, before anything reaches the disk.
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from foundry_core.masking import masker

_CHUNK = 1 << 16
# What has no end of a line is passed on in pieces of this length.
_LONGEST = 1 << 15
_LINE_END = re.compile(rb"[\r\n]")
# A process that left the stage's group may hold the other end for ever.
_PATIENCE_SECONDS = 5.0


@contextlib.contextmanager
def masked_log(path: Path, environment: Mapping[str, str] = os.environ) -> Iterator[int]:
    """A descriptor for the output of processes, which is appended to the file. When the block is
    left, all that they have printed by then is there."""
    reader, writer = os.pipe()
    try:
        file = path.open("ab", buffering=0)
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    copier = threading.Thread(
        target=_copy, args=(reader, file, masker(environment)), name="log", daemon=True
    )
    copier.start()
    try:
        yield writer
    finally:
        os.close(writer)
        copier.join(_PATIENCE_SECONDS)


def _copy(reader: int, file: BinaryIO, mask: Callable[[str], str]) -> None:
    """Until nobody can write any more. On a full disk the rest is read and dropped: a stage need
    not fail because its log has no room."""
    held = b""
    with file, os.fdopen(reader, "rb", buffering=0) as source:
        while data := source.read(_CHUNK):
            held += data
            whole = _whole(held)
            _write(file, held[:whole], mask)
            held = held[whole:]
        _write(file, held, mask)


def _whole(data: bytes) -> int:
    """How much of it can be masked: up to the last end of a line, or all of what is too long."""
    if _LINE_END.search(data) is None:
        return len(data) if len(data) > _LONGEST else 0
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


def _write(file: BinaryIO, data: bytes, mask: Callable[[str], str]) -> None:
    if data:
        text = mask(data.decode(errors="surrogateescape"))
        with contextlib.suppress(OSError):
            file.write(text.encode(errors="surrogateescape"))
