"""`foundry serve`: Prefect's server, pools, deployments, workers and the reaper in one command."""

import argparse
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from flows import processes
from flows.cli.commands.common import print_json
from flows.prefect import HOST, PORT, api_url
from foundry_core.endpoint import check_host
from foundry_core.errors import FoundryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=HOST, help="address of the server (default: loopback)")
    parser.add_argument("--port", type=port, default=PORT)
    parser.add_argument(
        "--gpu-limit",
        type=int,
        metavar="N",
        help="stages with GPUs at once (default: one per GPU)",
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is wrong, if anything; start nothing"
    )


def port(text: str) -> int:
    """ValueError for what no host has."""
    if not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port: expected 1 to 65535")
    return int(text)


def run(options: argparse.Namespace) -> int:
    check_host(options.host, "--host")
    from flows.service.diagnosis import findings, unusable

    if options.check:
        return _check(findings(options.host, options.port), options.json)
    for finding in unusable(options.host, options.port):
        raise FoundryError(finding.problem, finding.remedy)
    return _serve(options)


def _check(found: list, as_json: bool) -> int:
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        for one in found:
            print(f"✗ {one.problem}\n  → {one.remedy}", file=sys.stderr)
    else:
        print("✓ server, pools, deployments and workers are in order")
    return 2 if found else 0


def _serve(options: argparse.Namespace) -> int:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    url = api_url(options.host, options.port)
    # Before the first import of prefect: what runs in this process talks to the new server.
    os.environ["PREFECT_API_URL"] = url
    from flows.deployment import deployments
    from flows.prefect.api import GPU_POOL, PIPELINE_POOL
    from flows.service import reaper
    from flows.service.serve import Services

    services = Services(options.host, options.port, (PIPELINE_POOL, GPU_POOL))
    limit = options.gpu_limit or visible_gpus() or 1
    keeper = reaper.Reaper(_say)
    began = time.monotonic()
    with processes.recorded("serve", str(options.port), facts={"url": url}):
        try:
            services.start_server()
            names = deployments.apply(Path.cwd(), gpu_limit=limit)
            keeper.start()
            services.start_workers()
            _announce(services.url, names, limit, time.monotonic() - began)
            services.watch(stop, _say, keeper.soon)
        finally:
            _say("stops …")
            keeper.stop()
            services.stop_workers()
            try:
                if not services.server.ended:
                    reaper.close_all("foundry serve was stopped")
            finally:
                services.server.stop()
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _announce(url: str, names: list[str], limit: int, seconds: float) -> None:
    _say(f"ready in {seconds:.0f} s: {url.removesuffix('/api')}   (Ctrl-C stops everything)")
    _say(f"deployments: {', '.join(names)}; {limit} stage(s) with GPUs at once")
    _say("in another shell:")
    _say(f"  export PREFECT_API_URL={url}")
    _say("  prefect deployment run foundry/full -p pipeline=demo --watch")


def visible_gpus() -> int:
    """GPUs of this machine; 0 without a driver. Asks the driver's files, not torch (2 s)."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
