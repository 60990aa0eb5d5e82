"""`foundry serve`: Prefect's server, pools, deployments, workers and the reaper in one command."""

import argparse
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

from flows import processes
from flows.cli.commands.common import print_json
from flows.prefect import HOST, PORT, api_url, secret
from flows.prefect.addresses import LOGIN, RUNS
from flows.signals import ended_as_asked, held
from foundry_core.endpoint import check_host, is_loopback
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir
from foundry_core.store.disk import naming_disk

_STOPPED = "foundry serve was stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=HOST, help="address of the server (default: loopback)")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the server (default: {PORT})")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="another name by which browsers reach the server, e.g. a proxy's; may be repeated",
    )
    parser.add_argument(
        "--gpu-limit",
        type=int,
        metavar="N",
        help="stages with GPUs at once (default: one per GPU)",
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong, if anything; start nothing"
    )


def run(options: argparse.Namespace) -> int:
    check_host(options.host, "--host")
    from flows.service.diagnosis import findings, unusable

    if options.check:
        return _check(findings(options.host, options.port), options.json)
    for finding in unusable(options.host, options.port):
        raise FoundryError(finding.problem, finding.remedy)
    with naming_disk(home_dir()), ended_as_asked():
        _serve(options)
    return 0


def _check(found: list, as_json: bool) -> int:
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        for one in found:
            print(f"✗ {one.problem}\n  → {one.remedy}", file=sys.stderr)
    else:
        print("✓ server, pools, deployments and workers are in order")
    return 2 if found else 0


def _serve(options: argparse.Namespace) -> None:
    url, password = api_url(options.host, options.port), secret.make()
    if not password and not is_loopback(options.host):
        raise FoundryError(
            f"a server on {options.host} needs a password: {secret.SERVER} is empty",
            "unset it, and one is made; without any, stay on 127.0.0.1",
        )
    # The imports alone take seconds.
    _say(f"starts Prefect's server on {options.host}:{options.port}: about 20 s …")
    # Before the first import of prefect: what runs in this process talks to the new server.
    os.environ |= {"PREFECT_API_URL": url, secret.CLIENT: password}
    from flows.deployment import deployments
    from flows.prefect.api import GPU_POOL, PIPELINE_POOL
    from flows.service import reaper
    from flows.service.serve import Services

    names = (options.host, *options.name)
    services = Services(options.host, options.port, names, password, (PIPELINE_POOL, GPU_POOL))
    limit = options.gpu_limit or visible_gpus() or 1
    keeper = reaper.Reaper(_say)
    began = time.monotonic()
    with processes.recorded("serve", str(options.port), facts={"url": url}), held() as released:
        try:
            with released():
                services.start_server()
                applied = deployments.apply(gpu_limit=limit)
                keeper.start()
                services.start_workers()
                _announce(url, password, applied, limit, time.monotonic() - began)
                services.watch(_say, keeper.soon)
        finally:
            _say("stops …")
            keeper.stop()
            try:
                if not services.server.ended:
                    reaper.cancel_all(_STOPPED)
            finally:
                services.stop_workers()
                try:
                    reaper.close_all(_STOPPED, server=not services.server.ended)
                finally:
                    services.server.stop()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _announce(url: str, password: str, names: list[str], limit: int, seconds: float) -> None:
    page = url.removesuffix("/api")
    chosen = os.environ.get(secret.SERVER) is not None
    shown = sys.stderr.isatty()  # a log is no place for a password
    link = f"{page}{LOGIN}#{password}" if password and shown else page
    _say(f"ready in {seconds:.0f} s: {link}   (Ctrl-C stops everything)")
    _say(f"runs, while they go on and afterwards: {page}{RUNS}")
    if password and not shown:
        place = (
            f"the value of {secret.SERVER}" if chosen else f"what the file {secret.path()} holds"
        )
        _say(f"to log in, open {page}{LOGIN}#PASSWORD once; PASSWORD is {place}")
    gpus = f"{limit} stage(s) with GPUs at once" if visible_gpus() else "no GPU here"
    _say(f"deployments: {', '.join(names)}; {gpus}")
    _say("in another shell:")
    _say(f"  export PREFECT_API_URL={url}")
    if password:
        value = f"${secret.SERVER}" if chosen else f"$(cat {shlex.quote(str(secret.path()))})"
        _say(f'  export {secret.CLIENT}="{value}"')
    _say("  prefect deployment run foundry/full -p pipeline=demo --watch")


def visible_gpus() -> int:
    """GPUs of this machine; 0 without a driver. Asks the driver's files, not torch (2 s)."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
