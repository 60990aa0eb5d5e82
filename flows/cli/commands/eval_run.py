"""`foundry eval run POLICY --benchmark B`: one evaluation without a pipeline file.

It is a pipeline of one stage, or of two with the policy as an import: so it has a key, resumes,
goes to GPUs by its resources, and stands in the store and the lineage like any other.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError

_PROTOCOLS = {"openpi://": "openpi", "vla-eval://": "vla_eval"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from flows.cli.commands.common import add_run_arguments

    parser.add_argument(
        "policy",
        metavar="POLICY",
        help="an artifact's key or name, a run (RUN/STAGE), a folder; or one that is served: "
        "openpi://HOST:PORT, vla-eval://HOST:PORT",
    )
    parser.add_argument("--benchmark", required=True, metavar="B", help="e.g. metaworld")
    parser.add_argument("--episodes", type=int, metavar="N", help="of each task (default 25)")
    many: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--task", **many, metavar="T", help="one of its tasks; may be repeated")
    parser.add_argument(
        "-o", "--override", **many, metavar="PATH=VALUE", help="e.g. evaluate.first_scenario=100"
    )
    parser.add_argument(
        "--called", metavar="NAME", help="of a served policy: what it is, e.g. pi05-libero@1a2b"
    )
    parser.add_argument(
        "--mapping", default="", metavar="NAME|FILE", help="of a served policy: its serving mapping"
    )
    add_run_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from flows.cli.commands.common import exit_code, print_json
    from flows.cli.commands.run import run_all, summarise
    from flows.console import Console, plan_table, print_table
    from flows.runs.planning import Request, prepare
    from foundry_core.config.overrides import parse_override
    from foundry_core.files import json_text

    document = _document(options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{document['name']}.yaml"
        file.write_text(json_text(document))  # JSON is YAML
        overrides = tuple(parse_override(text) for text in options.override)
        prepared = prepare(Request(pipeline=str(file), overrides=overrides))
    print_table(plan_table(prepared.plan), options.json)
    if options.dry_run:
        if options.json:
            print_json(prepared.plan.to_json())
        return 0
    result = run_all(prepared, Console(quiet=options.json), options.dispatch, options.prefect)
    if options.json:
        print_json(result)
    else:
        summarise(result)
        print(f"  evaluation: {prepared.specs['evaluate'].key[:12]}")
    return exit_code(result["status"])


def _document(options: argparse.Namespace) -> dict[str, Any]:
    recipe: dict[str, Any] = {"benchmark": options.benchmark}
    if options.task:
        recipe["tasks"] = options.task
    if options.episodes is not None:
        recipe["episodes_per_task"] = options.episodes
    evaluate: dict[str, Any] = {"kind": "evaluate", "recipe": recipe}
    stages: dict[str, Any] = {"evaluate": evaluate}
    scheme = next((one for one in _PROTOCOLS if options.policy.startswith(one)), None)
    if scheme is None:
        stages["policy"] = {"import": _imported(options.policy)}
        evaluate["inputs"] = {"policy": "policy"}
    else:
        if not options.called:
            raise FoundryError(
                "--called is needed: nothing else says which policy is served there",
                "e.g. --called pi05-libero@1a2b; evaluations of one name are taken for one",
            )
        served = {"protocol": _PROTOCOLS[scheme], "policy": options.called}
        recipe["served"] = {**served, "mapping": options.mapping}
        evaluate["resources"] = {"server": options.policy.removeprefix(scheme)}
    return {"name": f"eval-{options.benchmark}", "stages": stages}


def _imported(ref: str) -> dict[str, str]:
    from foundry_core.home import store_uri
    from foundry_core.serving.found import policy_artifact
    from foundry_core.store.external import describe
    from foundry_core.store.open import open_store

    if Path(ref).is_dir():
        place = str(Path(ref).resolve())
        content = describe("train_vla", place, "").content
        return {"path": place, "kind": "train_vla", "digest": f"sha256:{content}"}
    artifact = policy_artifact(open_store(store_uri()), ref)
    digest = f"sha256:{artifact.content}"
    return {"key": artifact.key, "kind": artifact.kind, "digest": digest}
