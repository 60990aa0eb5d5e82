"""`foundry export-hf MODEL DST`: a policy as a folder of its own, an LLM or a VLM as a transformers
folder; `--push` puts it on the Hugging Face hub."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.commands.common import answer
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    from foundry_core.store.base import Store
    from foundry_core.store.manifest import Artifact

_POLICY = "policy.json"
_CONFIG = "config.json"
_KEY_DIGITS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="an artifact's key or name, a run (RUN/STAGE), a folder"
    )
    parser.add_argument("folder", metavar="DST", help="a new folder")
    parser.add_argument("--push", metavar="ORG/NAME", help="put it there, too; needs HF_TOKEN")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument(
        "--license", default="other", metavar="ID", help="of the weights, as the hub calls it"
    )
    parser.add_argument(
        "--data-license",
        action="append",
        default=[],
        metavar="SOURCE=ID",
        help="of a source that the card names; may be repeated",
    )
    parser.add_argument(
        "--backbone", action="store_true", help="of a policy its backbone, for transformers"
    )
    parser.add_argument(
        "--adapters",
        choices=("merged", "apart"),
        default="merged",
        help="low-rank adapters of a backbone: folded in, or in a folder as peft reads them",
    )
    parser.add_argument("--shard-size", default="5GB", metavar="SIZE", help="of weight files")


def run(options: argparse.Namespace) -> int:
    from foundry_core.release.licences import parse_licences
    from foundry_core.release.push import check_push, push

    licences = parse_licences(options.data_license)
    if options.push:
        check_push(options.push)
    out = Path(options.folder)
    with ExitStack() as stack:
        folder, name, known = _model(options.model, stack)
        name = options.push or out.name or name
        if (folder / _POLICY).is_file() and not options.backbone:
            from foundry_core.release.policy_folder import export_policy

            export_policy(
                folder, out, name, known=known, licence=options.license, licences=licences
            )
            said: dict[str, Any] = {"folder": str(out), "form": "foundry-policy"}
        else:
            said = _transformers(options, folder, out)
    if options.push:
        said["commit"] = push(out, options.push, f"Add {name}", private=options.private)
    return answer(options, said, _text(said))


def _transformers(options: argparse.Namespace, folder: Path, out: Path) -> dict[str, Any]:
    from foundry_core.models.huggingface.export import export_hf
    from foundry_core.models.huggingface.parity import TOKENS, text_distance
    from foundry_core.release.policy_folder import empty_folder

    empty_folder(out)
    export_hf(folder, out, max_shard_size=options.shard_size, adapters=options.adapters)
    said: dict[str, Any] = {"folder": str(out), "form": "transformers"}
    if options.adapters == "merged":
        rows, length = TOKENS
        said["parity"] = {
            "largest_difference": text_distance(folder, out),
            "over": f"logits of {rows} x {length} random tokens in float32",
        }
    return said


def _text(said: dict[str, Any]) -> str:
    lines = [f"{said['form']}: {said['folder']}"]
    if "parity" in said:
        parity = said["parity"]
        lines.append(f"  {parity['over']}: at most {parity['largest_difference']:.1e} apart")
    if "commit" in said:
        lines.append(f"  pushed: {said['commit']}")
    return "\n".join(lines)


def _model(ref: str, stack: ExitStack) -> "tuple[Path, str, tuple[Store, Artifact] | None]":
    """(folder, what to call it, its store and artifact where a store knows it)."""
    from foundry_core.home import store_uri
    from foundry_core.serving.found import policy_artifact
    from foundry_core.store.open import open_store
    from foundry_core.store.references import find
    from foundry_core.store.run_records import run_ids

    if Path(ref).is_dir():
        if not (Path(ref) / _CONFIG).is_file():
            raise FoundryError(f"{ref!r} holds no {_CONFIG}", "point it at a model's folder")
        return Path(ref), Path(ref).resolve().name, None
    store = open_store(store_uri())
    if ref.partition("/")[0] in run_ids(store.documents):
        artifact = policy_artifact(store, ref)
    else:
        try:
            artifact = find(store, ref)
        except FoundryError as error:
            message = f"{ref!r} is no folder, no artifact and no run: {error.message}"
            raise FoundryError(message, error.hint) from None
    short = f"{artifact.kind}/{artifact.key[:_KEY_DIGITS]}"
    if _CONFIG not in {file.path for file in artifact.files}:
        raise FoundryError(f"{short} is no model: it has no {_CONFIG}", "name a model")
    folder = stack.enter_context(store.reading(artifact))
    return folder, f"{artifact.kind}-{artifact.key[:_KEY_DIGITS]}", (store, artifact)
