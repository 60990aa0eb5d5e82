"""A PostgreSQL server of its own in a temporary folder, for tests; never the machine's."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestration import free_port

# Debian keeps the server's programs off the PATH.
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def program(name: str) -> str:
    """Its path; skips the test with the reason where PostgreSQL is not installed."""
    found = shutil.which(name) or next(
        (str(folder / name) for folder in _FOLDERS if (folder / name).exists()), None
    )
    if found is None:
        pytest.skip(f"PostgreSQL is not installed ({name}): apt-get install postgresql")
    return found


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A running server; the URL of its database as Prefect takes it.

    PostgreSQL refuses to run as root: then the user `postgres` of the Debian package runs it.
    """
    initdb, server = program("initdb"), program("postgres")
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="foundry-postgres-", dir="/tmp"))
    data, port = folder / "data", free_port()
    if user:
        shutil.chown(folder, user)
    try:
        flags = ("-D", str(data), "-U", "foundry", "-A", "trust", "--no-sync")
        subprocess.run([initdb, *flags], user=user, check=True, capture_output=True, cwd=folder)
        options = ("-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-k", str(folder))
        process = subprocess.Popen(
            [server, "-D", str(data), "-p", str(port), *options],
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        try:
            _wait(process, folder / f".s.PGSQL.{port}", folder / "log")
            yield f"postgresql+asyncpg://foundry@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str | None:
    """None: as whoever runs the test."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")


def _wait(process: subprocess.Popen, socket: Path, log: Path) -> None:
    deadline = time.monotonic() + 60
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")
        time.sleep(0.1)
