"""What an attempt wrote, as an artifact may have it: all of it below its folder."""

import os
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.files import replacing
from foundry_core.store.manifest import File, scan


def scan_output(folder: Path) -> tuple[File, ...]:
    """Every file below an attempt's folder with its digest. Links within it are made relative, as
    the folder moves when it is committed. FoundryError for a link that leads out of it: what it
    shows may change, or go, without the artifact."""
    real = os.path.realpath(folder)
    for place, folders, names in os.walk(real):
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink():
                _make_relative(path, real)
    return scan(folder)


def _make_relative(link: Path, real: str) -> None:
    target = os.path.realpath(link)
    if not target.startswith(f"{real}/"):
        raise FoundryError(
            f"its output {os.path.relpath(link, real)} is a link to {target}",
            "write or copy the file itself: an artifact holds all of its bytes",
        )
    text = os.path.relpath(target, link.parent)
    if os.readlink(link) != text:
        with replacing(link) as temporary:
            temporary.symlink_to(text)
