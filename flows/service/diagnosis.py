"""What is wrong with the orchestration, in plain words: `foundry serve --check`.

Looks from the outside inwards and stops at the first layer that is broken: without a server there
is nothing to say about its pools.
"""

import importlib.metadata
import json
import os
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass

from flows.prefect.settings import api_url

# A server of Prefect 3.8 cannot start with others (pyproject.toml pins them).
FASTAPI = ("0.139", "0.151")
PREFECT = "3.8."


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what mends it."""

    problem: str
    remedy: str


def findings(host: str, port: int) -> list[Finding]:
    """Everything known to be wrong; empty when a full pipeline could be started from the UI."""
    wrong = versions()
    if not listening(host, port):
        wrong.append(
            Finding(f"nothing listens on {host}:{port}: no server runs", "start `foundry serve`")
        )
        return wrong
    if not is_prefect(host, port):
        return [*wrong, taken(host, port)]
    os.environ["PREFECT_API_URL"] = api_url(host, port)
    return wrong + orchestration()


def unusable(host: str, port: int) -> list[Finding]:
    """Why `foundry serve` could not start here."""
    wrong = versions()
    if listening(host, port):
        if is_prefect(host, port):
            wrong.append(
                Finding(
                    f"a Prefect server runs on {host}:{port} already",
                    "stop it, or give --port; `foundry serve --check` looks at the one that runs",
                )
            )
        else:
            wrong.append(taken(host, port))
    return wrong


def taken(host: str, port: int) -> Finding:
    """What to say of a port that another program uses."""
    return Finding(
        f"port {port} on {host} is taken by another program",
        f"give another port (`foundry serve --port {port + 1}`), or stop that program",
    )


def versions() -> list[Finding]:
    """Versions of packages that keep a Prefect server from starting."""
    wrong = []
    prefect = importlib.metadata.version("prefect")
    fastapi = importlib.metadata.version("fastapi")
    if not prefect.startswith(PREFECT):
        wrong.append(
            Finding(f"prefect {prefect} is installed, {PREFECT}x is needed", _install("prefect"))
        )
    low, high = FASTAPI
    if not _numbers(low) <= _numbers(fastapi) < _numbers(high):
        wrong.append(
            Finding(
                f"fastapi {fastapi} is installed: the server needs >={low},<{high}",
                _install(f"fastapi>={low},<{high}"),
            )
        )
    return wrong


def _install(what: str) -> str:
    return f"pip install -c constraints.txt '{what}'"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def listening(host: str, port: int) -> bool:
    """Whether any program takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def is_prefect(host: str, port: int) -> bool:
    """Whether the answer is that of a Prefect API."""
    try:
        with urllib.request.urlopen(f"{api_url(host, port)}/health", timeout=10) as answer:
            return json.load(answer) is True
    except (OSError, ValueError, urllib.error.URLError):
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
            wrong.append(
                Finding(
                    f"no worker of pool {pool!r} is online: its runs would wait for ever",
                    f"`foundry serve` runs one; elsewhere: prefect worker start --pool {pool}",
                )
            )
    missing = [name for name in map(full_name, declared()) if not has_deployment(name)]
    return wrong + [Finding(f"there is no deployment {name!r}", _APPLY) for name in missing]


_APPLY = "start `foundry serve`, or `prefect deploy --prefect-file deploy/prefect.yaml --all`"
