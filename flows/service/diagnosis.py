"""What is wrong with the orchestration, in plain words: `foundry serve --check`.

Looks from the outside inwards and stops at the first layer that is broken: without a server there
is nothing to say about its pools.
"""

import errno
import importlib.metadata
import os
import socket
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet

from flows.deployment.server import healthy
from flows.prefect import api_url

# A server of Prefect 3.8 cannot start with others (pyproject.toml pins them).
_FASTAPI = ">=0.139,<0.151"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what mends it."""

    problem: str
    remedy: str


def findings(host: str, port: int) -> list[Finding]:
    """Everything known to be wrong; empty when a full pipeline could be started from the UI."""
    wrong = versions()
    if place := misplaced(host, port):
        return [*wrong, place]
    if not listening(host, port):
        problem = f"nothing listens on {host}:{port}: no server runs"
        return [*wrong, Finding(problem, "start `foundry serve`")]
    if not healthy(api_url(host, port)):
        return [*wrong, taken(host, port)]
    os.environ["PREFECT_API_URL"] = api_url(host, port)
    return wrong + orchestration()


def unusable(host: str, port: int) -> list[Finding]:
    """Why `foundry serve` could not start here."""
    wrong = versions()
    if place := misplaced(host, port):
        return [*wrong, place]
    refused = _bind(host, port)
    if refused is None:
        return wrong
    if refused.errno != errno.EADDRINUSE:
        problem = f"{host}:{port} cannot be listened on ({refused.strerror})"
        remedy = "give --host an address of this machine, and --port a number above 1023"
        return [*wrong, Finding(problem, remedy)]
    if not healthy(api_url(host, port)):
        return [*wrong, taken(host, port)]
    problem = f"a Prefect server runs on {host}:{port} already"
    remedy = "stop it, or give --port; `foundry serve --check` looks at the one that runs"
    return [*wrong, Finding(problem, remedy)]


def _bind(host: str, port: int) -> OSError | None:
    """Why nothing may listen at an address; None when something may."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error
    return None


def misplaced(host: str, port: int) -> Finding | None:
    """Why there can be no server at such an address."""
    if not 0 < port < 1 << 16:
        return Finding(f"there is no port {port}", "give --port a number from 1 to 65535")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError):
        return Finding(f"host {host!r} is not known", "give --host an address of this machine")
    return None


def taken(host: str, port: int) -> Finding:
    """What to say of a port that another program uses."""
    return Finding(
        f"port {port} on {host} is taken by another program",
        f"give another port (`foundry serve --port {port % 65535 + 1}`), or stop that program",
    )


def versions() -> list[Finding]:
    """Versions of packages that keep a Prefect server from starting."""
    wrong = []
    for package, needed, rule in (
        ("prefect", "==3.8.*", ", 3.8.x is needed"),
        ("fastapi", _FASTAPI, f": the server needs {_FASTAPI}"),
    ):
        version = importlib.metadata.version(package)
        if not SpecifierSet(needed).contains(version, prereleases=True):
            remedy = f"pip install -c constraints.txt '{package}{needed}'"
            wrong.append(Finding(f"{package} {version} is installed{rule}", remedy))
    return wrong


def listening(host: str, port: int) -> bool:
    """Whether any program takes connections there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def orchestration() -> list[Finding]:
    """What the server lacks: pools, deployments, workers that are online."""
    from flows.deployment.deployments import declared, full_name
    from flows.prefect.pools import has_deployment, online_workers

    wrong: list[Finding] = []
    for pool in dict.fromkeys(entry["work_pool"]["name"] for entry in declared()):
        online = online_workers(pool)
        if online is None:
            wrong.append(Finding(f"there is no work pool {pool!r}", _APPLY))
        elif not online:
            problem = f"no worker of pool {pool!r} is online: its runs would wait for ever"
            remedy = f"`foundry serve` runs one; elsewhere: prefect worker start --pool {pool}"
            wrong.append(Finding(problem, remedy))
    missing = [name for name in map(full_name, declared()) if not has_deployment(name)]
    return wrong + [Finding(f"there is no deployment {name!r}", _APPLY) for name in missing]


_APPLY = "start `foundry serve`, or `prefect deploy --prefect-file deploy/prefect.yaml --all`"
