"""`foundry policy serve`: a policy as a server, over any of the protocols of the front-ends."""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from flows.cli.commands.common import print_json
from flows.signals import ended_as_asked, held
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    from foundry_core.serving.frontends.base import FrontEnd
    from foundry_core.serving.options import ServingOptions
    from foundry_core.serving.server import PolicyServer, ServedPolicy

_POLL_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="policy_command", metavar="WHAT", required=True)
    serve = commands.add_parser(
        "serve", help="answer benchmarks and robots", description="Answers benchmarks and robots."
    )
    what = serve.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "policy",
        nargs="?",
        metavar="POLICY",
        help="an artifact's key or name, a run (RUN/STAGE where it has several), or a folder",
    )
    what.add_argument("--wave", action="store_true", help="no policy: arms wave by 2 cm")
    what.add_argument("--null", action="store_true", help="no policy: zeros, to measure latency")
    _add_ports(serve)
    _add_chunks(serve)
    _add_running(serve)
    serve.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print the ports as JSON"
    )


def _add_ports(parser: argparse.ArgumentParser) -> None:
    ports = parser.add_argument_group("protocols (any of them; port 0 takes a free one)")
    ports.add_argument("--lbm", type=int, metavar="PORT", help="gRPC, as LBM Eval (50051 there)")
    ports.add_argument("--openpi", type=int, metavar="PORT", help="openpi's clients (8000 there)")
    ports.add_argument("--vla-eval", type=int, metavar="PORT", help="vla-eval (8000 there)")
    ports.add_argument(
        "--frontend",
        action="append",
        default=[],
        metavar="NAME=PORT",
        help="another registered front-end",
    )
    ports.add_argument("--host", default="127.0.0.1", help="beyond loopback a token is needed")
    ports.add_argument(
        "--mapping",
        default="",
        metavar="NAME|FILE",
        help="keys of openpi and vla-eval (libero, or a YAML file); default: fields' own names",
    )


def _add_chunks(parser: argparse.ArgumentParser) -> None:
    chunks = parser.add_argument_group("chunks")
    chunks.add_argument("--execute-steps", type=int, metavar="N", help="default: the policy's")
    chunks.add_argument(
        "--ensemble", type=float, metavar="M", help="average overlapping chunks by exp(-M i)"
    )
    chunks.add_argument(
        "--delay", type=int, default=0, metavar="D", help="predict D steps before it is needed"
    )
    chunks.add_argument(
        "--gripper-hysteresis", type=float, metavar="H", help="share of the stroke; default: off"
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    running = parser.add_argument_group("running")
    running.add_argument("--seed", type=int, default=0, help="where a protocol names none")
    running.add_argument("--batch-ms", type=float, default=3.0, help="wait for other clients")
    running.add_argument("--max-clients", type=int, default=256, metavar="N", help="at once")
    running.add_argument(
        "--idle-seconds", type=float, default=600.0, metavar="S", help="then forgotten"
    )
    running.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 ...")
    running.add_argument("--threads", type=int, metavar="N", help="of the inference on CPUs")
    running.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of products"
    )
    running.add_argument("--compile", action="store_true", help="compile the model")
    running.add_argument("--graphs", action="store_true", help="CUDA graphs")


def run(options: argparse.Namespace) -> int:
    from foundry_core.config.validation import validate
    from foundry_core.serving.options import ServingOptions

    try:
        serving: ServingOptions = validate(ServingOptions, _stated(options), "serve")
    except FoundryError as error:
        raise FoundryError(error.message, "see `foundry policy serve --help`") from None
    fronts = _front_ends(options)
    with ExitStack() as stack, held() as released:
        with released():
            policy, name = _policy(options, stack)
            server = _server(policy, name, serving, options.debug)
        stack.callback(server.stop)
        with ended_as_asked():
            _serve(server, fronts, released, options.json)
    return 0


def _stated(options: argparse.Namespace) -> dict[str, Any]:
    chunks = ("execute_steps", "ensemble", "delay", "gripper_hysteresis")
    running = ("seed", "batch_ms", "max_clients", "idle_seconds")
    return {
        **{name: getattr(options, name) for name in running},
        "chunks": {name: getattr(options, name) for name in chunks},
    }


def _front_ends(options: argparse.Namespace) -> "list[FrontEnd]":
    """Of the ports that were asked for; at least one."""
    from foundry_core.config.validation import validate
    from foundry_core.endpoint import check_host
    from foundry_core.serving.access import served_token
    from foundry_core.serving.frontends import FRONTENDS

    own = {"lbm": options.lbm, "openpi": options.openpi, "vla_eval": options.vla_eval}
    asked = [(name, port) for name, port in own.items() if port is not None]
    for text in options.frontend:
        name, _, port = text.partition("=")
        asked.append((name.replace("-", "_"), port))
    if not asked:
        raise FoundryError(
            "no protocol is asked for", "e.g. --vla-eval 8000, --openpi 8000, --lbm 50051"
        )
    check_host(options.host, "--host")
    token = served_token(options.host)
    found = []
    for name, port in asked:
        mapping = options.mapping if name != "lbm" else ""
        stated = {"host": options.host, "port": port, "mapping": mapping, "token": token}
        found.append(validate(FRONTENDS.get(name), stated, name))
    return found


def _policy(options: argparse.Namespace, stack: ExitStack) -> "tuple[ServedPolicy, str]":
    if options.wave or options.null:
        from foundry_core.serving.stand_ins import NullPolicy, WavePolicy, stand_in_contract

        contract = stand_in_contract(_mapped_exam(options))
        return (WavePolicy if options.wave else NullPolicy)(contract), (
            "wave" if options.wave else "null"
        )
    from foundry_core.serving.found import find_policy

    folder, name = find_policy(options.policy, stack)
    from foundry_core.models.inference import Acceleration
    from foundry_core.serving.policy import load_policy

    how = Acceleration(precision=options.precision, compiled=options.compile, graphs=options.graphs)
    return load_policy(folder, device=options.device, threads=options.threads, how=how), name


def _mapped_exam(options: argparse.Namespace) -> Any:
    """What the mapping's clients show and take, for policies that have no data of their own."""
    if not options.mapping:
        return None
    from foundry_core.data.contract.statements import DataContract
    from foundry_core.serving.mapping import load_serving_mapping

    protocol = "openpi" if options.openpi is not None else "vla_eval"
    return load_serving_mapping(options.mapping, protocol).exam(DataContract())


def _server(
    policy: "ServedPolicy", name: str, serving: "ServingOptions", debug: bool
) -> "PolicyServer":
    from foundry_core.serving.server import PolicyServer

    server = PolicyServer(policy, name, serving, say=_say, debug=debug)
    server.warm_up()
    return server


def _serve(
    server: "PolicyServer", fronts: "list[FrontEnd]", released: Callable[[], Any], as_json: bool
) -> None:
    """Until a signal, or until a front-end cannot go on."""
    from foundry_core.serving.running import Running

    for front in fronts:
        front.check(server)
    stop, over = threading.Event(), threading.Event()
    running = [Running(front, server, stop, over) for front in fronts]
    try:
        with released():
            for one in running:
                one.start()
            for one in running:
                one.wait_ready()
            _announce(server, {one.front.kind: one.port for one in running}, as_json)
            while not over.wait(_POLL_SECONDS):
                pass
    finally:
        stop.set()
        for one in running:
            one.join()
        _report(server)
    for one in running:
        if one.error is not None:
            raise one.error


def _announce(server: "PolicyServer", ports: Mapping[str, int], as_json: bool) -> None:
    if not server.reads_words:
        _say("this policy reads no words: prompts change nothing")
    if as_json:
        said = {"hz": server.contract.hz, "execute_steps": server.execute_steps}
        said["reads_words"] = server.reads_words
        print_json({"policy": server.name, **said, "ports": ports, "pid": os.getpid()})
        sys.stdout.flush()
        return
    listed = ", ".join(f"{kind.replace('_', '-')} on port {port}" for kind, port in ports.items())
    contract = server.contract
    _say(f"{server.name}: {listed}   (Ctrl-C stops)")
    rate = "any rate" if contract.hz is None else f"{contract.hz:g} Hz"
    _say(
        f"cameras {', '.join(contract.cameras) or 'none'}; {rate}, {server.execute_steps} of "
        f"{contract.ahead} predicted steps carried out"
    )


def _report(server: "PolicyServer") -> None:
    """What was served, and how fast."""
    found = server.stats()
    _say(
        f"stops: {found['observations']} observations of {found['episodes']} episodes, "
        f"{found['inferences']} inferences in {found['batches']} batches"
    )
    for name, one in found["latency"].items():
        _say(f"  {name}: p50 {one['p50_ms']} ms, p90 {one['p90_ms']}, p99 {one['p99_ms']}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
