"""The state of the checkout that holds the code, bounded in bytes, files and time: a data set that
lies untracked in it, a link to a device or a slow disk cost a run no more than a moment.
"""

import hashlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Any

from foundry_core.files import sha256_hex
from foundry_core.masking import mask_text

_MAX_DIFF = 4 * 2**20
_SECONDS = 10.0
_CHUNK = 2**20


def git_state(checkout: Path | None = None) -> dict[str, Any]:
    """{"commit", "dirty", "diff_digest", "diff", "left_out"} of the checkout that holds this code;
    commit None where there is no git or no checkout. Untracked files count as changes, by digest.
    left_out: how many changes the diff names by their size alone, or not at all."""
    root = checkout or Path(__file__).resolve().parents[2]
    commit, _ = _git(root, "rev-parse", "HEAD")
    if not commit:
        return {"commit": None, "dirty": None, "diff_digest": None, "diff": "", "left_out": 0}
    # Drivers of a user's git configuration may print, or wait for, anything.
    diff, all_of_it = _git(root, "diff", "--no-ext-diff", "--no-textconv", "HEAD")
    untracked, all_names = _git(root, "ls-files", "-z", "--others", "--exclude-standard")
    names = untracked.split("\0")[:-1]
    reading = _Reading()
    lines = [f"\nuntracked {name} {reading.describe(root / name)}" for name in sorted(names)]
    text = mask_text(f"{diff}{''.join(lines)}")
    left_out = reading.left_out + (not all_of_it) + (not all_names)
    if left_out:
        text = f"{text[:_MAX_DIFF]}\n... {left_out} of the changes are left out: {_LIMITS}"
    text = text if text.strip() else ""
    digest = sha256_hex(text) if text else None
    return {
        "commit": commit.strip(),
        "dirty": bool(text),
        "diff_digest": digest,
        "diff": text,
        "left_out": left_out,
    }


def output(*command: str, most: int = _MAX_DIFF) -> tuple[str, bool]:
    """(what a program prints, whether that is all). At most so many bytes; ('', False) where it is
    not installed, fails or takes too long. git takes no locks."""
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError:
        return "", False
    deadline = threading.Timer(_SECONDS, process.kill)
    deadline.start()
    try:
        with process:
            assert process.stdout is not None
            data = process.stdout.read(most)
            more = bool(process.stdout.read(1))
            if more:
                process.kill()
    finally:
        deadline.cancel()
    if not more and process.returncode != 0:
        return "", False
    return data.decode(errors="replace"), not more


def _git(root: Path, *arguments: str) -> tuple[str, bool]:
    return output("git", "-C", str(root), *arguments)


@dataclass
class _Reading:
    """What may still be read of the untracked files."""

    files: int = 1000
    bytes: int = 32 * 2**20
    deadline: float = field(default_factory=lambda: time.monotonic() + 2.0)
    left_out: int = 0

    def describe(self, path: Path) -> str:
        """A file's digest, a link's target, or why the file was not read."""
        try:
            stat = path.lstat()
            if S_ISLNK(stat.st_mode):
                return f"link to {os.readlink(path)}"
            if not S_ISREG(stat.st_mode):
                return "no regular file"
            if self._allows(stat.st_size):
                return _digest(path, stat.st_size)
        except OSError:
            return "unreadable"
        self.left_out += 1
        return f"not read: {stat.st_size} bytes, modified {stat.st_mtime_ns}"

    def _allows(self, size: int) -> bool:
        if size > self.bytes or self.files == 0 or time.monotonic() > self.deadline:
            return False
        self.files -= 1
        self.bytes -= size
        return True


_LIMITS = (
    f"at most {_MAX_DIFF >> 20} MiB of differences, and of the untracked files {_Reading.files} "
    f"with {_Reading.bytes >> 20} MiB, are kept"
)


def _digest(path: Path, size: int) -> str:
    """Of the first `size` bytes of a regular file; what takes its place meanwhile is not read."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as stream:
        if not S_ISREG(os.fstat(handle).st_mode):
            return "no regular file"
        digest = hashlib.sha256()
        while size > 0 and (data := stream.read(min(size, _CHUNK))):
            digest.update(data)
            size -= len(data)
        return digest.hexdigest()
