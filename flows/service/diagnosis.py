"""What is wrong with the orchestration, in plain words: `foundry serve --check`.

Looks from the outside inwards and stops at the first layer that is broken: without a server there
is nothing to say about its pools.
"""

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
    if not listening(host, port):
        return wrong
    if not healthy(api_url(host, port)):
        return [*wrong, taken(host, port)]
    problem = f"a Prefect server runs on {host}:{port} already"
    remedy = "stop it, or give --port; `foundry serve --check` looks at the one that runs"
    return [*wrong, Finding(problem, remedy)]


def taken(host: str, port: int) -> Finding:
    """What to say of a port that another program uses."""
    return Finding(
        f"port {port} on {host} is taken by another program",
        f"give another port (`foundry serve --port {port + 1}`), or stop that program",
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
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


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
