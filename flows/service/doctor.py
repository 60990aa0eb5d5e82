"""What this machine has for Foundry, what is missing, and what mends it: `foundry doctor`.

Every look is independent: what breaks one of them is its finding, and the others go on. Nothing is
changed but one small blob, written to the store and deleted again.
"""

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from flows.service.diagnosis import listening, versions
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir, store_uri

State = Literal["ok", "note", "wrong"]

_DISTRIBUTION = "foundry-robotics"
_GIB = 2**30
# A demo's home takes 1 GB, Ray's object store and checkpoints of a small training some more.
_LITTLE_DISK = 5 * _GIB
_LITTLE_SHARED = 1 * _GIB


@dataclass(frozen=True)
class Look:
    """What was looked at, how it stands, and what mends it where it does not."""

    name: str
    state: State
    says: str
    remedy: str = ""


def looks(host: str, port: int) -> list[Look]:
    """All of them, in the order in which a person would go. host, port: of `foundry serve`."""
    every: dict[str, Callable[[], Look]] = {
        "python": _python,
        "packages": _packages,
        "processor": _processor,
        "GPU": _gpu,
        "graphics": _graphics,
        "home": _home,
        "store": _store,
        "disk": _disk,
        "shared memory": _shared_memory,
        "Prefect": lambda: _prefect(host, port),
        "Ray": _ray,
        "extras": _extras,
    }
    return [_looked(name, look) for name, look in every.items()]


def _looked(name: str, look: Callable[[], Look]) -> Look:
    try:
        return look()
    except FoundryError as error:
        return Look(name, "wrong", error.message, error.hint)
    except OSError as error:
        return Look(name, "wrong", str(error), "see the system's message")


def _python() -> Look:
    return Look("python", "ok", f"{platform.python_version()} on {platform.system()}")


def _packages() -> Look:
    wrong = versions()
    if wrong:
        return Look("packages", "wrong", wrong[0].problem, wrong[0].remedy)
    named = ("torch", "prefect", "ray", "transformers", "duckdb")
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in named)
    return Look("packages", "ok", found)


def _processor() -> Look:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    return Look("processor", "ok", f"{len(os.sched_getaffinity(0))} cores, {pages:.0f} GiB memory")


def _gpu() -> Look:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        total = torch.cuda.get_device_properties(0).total_memory / _GIB
        says = f"{count} x {torch.cuda.get_device_name(0)}, {total:.0f} GiB each"
        return Look("GPU", "ok", says)
    if Path("/dev/nvidiactl").exists() and torch.version.cuda is None:
        says = f"this machine has a GPU, and torch {torch.__version__} is a CPU build"
        return Look("GPU", "wrong", says, "pip install torch==2.13.0 from PyPI, then run again")
    return Look("GPU", "note", "none: stages run on the CPU", "the shipped demo needs none")


def _graphics() -> Look:
    from foundry_core.simulation.backend import load_mujoco

    load_mujoco()
    return Look("graphics", "ok", f"off-screen rendering by {os.environ['MUJOCO_GL']}")


def _home() -> Look:
    home = home_dir()
    if not home.is_dir():
        return Look("home", "note", f"{home} does not exist yet", "the first run makes it")
    if os.access(home, os.W_OK):
        return Look("home", "ok", str(home))
    return Look("home", "wrong", f"{home} cannot be written", "set FOUNDRY_HOME elsewhere")


def _store() -> Look:
    from foundry_core.blobs import open_blobs

    uri = store_uri()
    if "://" not in uri and not Path(uri).is_dir():
        return Look("store", "note", f"{uri} does not exist yet", "the first run makes it")
    blobs, name, data = open_blobs(uri), f"doctor/{uuid.uuid4().hex}", b"foundry doctor"
    blobs.write(name, data)
    try:
        if blobs.read(name) != data:
            return Look(
                "store", "wrong", f"{uri} gives back other bytes than it took", "replace it"
            )
    finally:
        blobs.delete(name)
        if "://" not in uri:
            Path(uri, "doctor").rmdir()
    return Look("store", "ok", f"{uri}: created once, read, deleted")


def _disk() -> Look:
    home = home_dir()
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    parts = {"home": there, "temporary files": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(folder).free for name, folder in parts.items()}
    says = ", ".join(f"{count / _GIB:.0f} GiB free for {name}" for name, count in free.items())
    if min(free.values()) < _LITTLE_DISK:
        return Look(
            "disk", "wrong", says, f"the demo wants {_LITTLE_DISK / _GIB:.0f} GiB; free some"
        )
    return Look("disk", "ok", says)


def _shared_memory() -> Look:
    free = shutil.disk_usage("/dev/shm").free
    says = f"{free / _GIB:.1f} GiB in /dev/shm"
    if free < _LITTLE_SHARED:
        return Look("shared memory", "wrong", says, "in a container: --shm-size=2g, or more")
    return Look("shared memory", "ok", says)


def _prefect(host: str, port: int) -> Look:
    from flows.prefect import server_named

    if server_named():
        named = os.environ.get("PREFECT_API_URL", "")
        if not named:
            return Look("Prefect", "ok", "a profile of Prefect's names the server")
        address = urlsplit(named)
        if listening(address.hostname or "", address.port or 443):
            return Look("Prefect", "ok", f"server {named}")
        remedy = "start it, or unset PREFECT_API_URL"
        return Look("Prefect", "wrong", f"nothing answers at {named}", remedy)
    if listening(host, port):
        says = f"something listens on {host}:{port}"
        return Look("Prefect", "note", says, "`foundry serve --check` says what")
    says = f"no server; port {port} is free"
    return Look("Prefect", "note", says, "`foundry serve` starts one; runs need none")


def _ray() -> Look:
    version = importlib.metadata.version("ray")
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address in ("local", "auto"):
        return Look("Ray", "ok", f"{version}; stages start a small one where they need it")
    place = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        with socket.create_connection((place.hostname or "", place.port or 10001), timeout=2):
            return Look("Ray", "ok", f"{version}; RAY_ADDRESS {address} answers")
    except OSError as error:
        says = f"RAY_ADDRESS {address} does not answer ({error})"
        return Look("Ray", "wrong", says, "start the cluster, or unset RAY_ADDRESS")


def _extras() -> Look:
    asked = _by_extra()
    absent = [name for name, packages in asked.items() if not all(map(_installed, packages))]
    present = [name for name in asked if name not in absent]
    says = f"{', '.join(present) or 'none'} installed"
    if not absent:
        return Look("extras", "ok", says)
    wanted = f"'{_DISTRIBUTION}[{','.join(absent)}]'"
    return Look("extras", "note", f"{says}, not {', '.join(absent)}", f"pip install {wanted}")


def _by_extra() -> dict[str, list[str]]:
    """Extra → the packages that it brings, but for that of developers."""
    found: dict[str, list[str]] = {}
    for text in importlib.metadata.requires(_DISTRIBUTION) or ():
        requirement = Requirement(text)
        for extra in importlib.metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or ():
            marker = requirement.marker
            if marker is None or extra == "dev" or marker.evaluate({"extra": ""}):
                continue
            if marker.evaluate({"extra": extra}):
                found.setdefault(extra, []).append(requirement.name)
    return found


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
