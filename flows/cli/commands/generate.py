"""`foundry generate MODEL TEXT`: what a language model or VLM writes after a text and pictures."""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.commands.common import print_json
from foundry_core.errors import FoundryError, printable

if TYPE_CHECKING:
    from foundry_core.models.generation_config import GenerationConfig

_STDIN = "-"
_KEY_DIGITS = 12
_CONFIG = "config.json"
_ENDS = {
    "stop": "ended by itself",
    "length": "cut at --max-tokens",
    "context": "cut where its context is full",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="an artifact's key, a prefix of one, its name, or a folder"
    )
    parser.add_argument("text", metavar="TEXT", help=f"what it reads; {_STDIN}: standard input")
    many: dict[str, Any] = {"action": "append", "default": [], "type": Path}
    parser.add_argument("--image", **many, metavar="FILE", help="a picture before the text")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="at most (256)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0: the likeliest (default)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the likeliest that reach P together"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    parser.add_argument("--raw", action="store_true", help="without the model's chat template")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1 ...")


def run(options: argparse.Namespace) -> int:
    config = _config(options)
    files = [(str(path), _bytes(path)) for path in options.image]
    text = sys.stdin.read() if options.text == _STDIN else options.text
    with contextlib.ExitStack() as open_till_then:
        folder = _folder(options.model, open_till_then)
        return _generate(options, folder, config, text, files)


def _config(options: argparse.Namespace) -> "GenerationConfig":
    from foundry_core.config.validation import validate
    from foundry_core.models.generation_config import GenerationConfig

    names = ("max_tokens", "temperature", "top_k", "top_p", "seed")
    stated = {name: getattr(options, name) for name in names}
    try:
        config: GenerationConfig = validate(GenerationConfig, stated, "generate")
    except FoundryError as error:
        raise FoundryError(error.message, "see `foundry generate --help`") from None
    return config


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FoundryError(
            f"the image {str(path)!r} cannot be read: {error.strerror}", "--image takes a file"
        ) from None


def _folder(ref: str, open_till_then: contextlib.ExitStack) -> Path:
    """Of a saved model: a folder by its path, else an artifact of the home's store."""
    from foundry_core.home import store_uri
    from foundry_core.store.open import open_store
    from foundry_core.store.references import find

    if Path(ref).is_dir():
        return Path(ref)
    store = open_store(store_uri())
    try:
        artifact = find(store, ref)
    except FoundryError as error:
        message = f"{ref!r} is no folder and no artifact: {error.message}"
        raise FoundryError(message, error.hint) from None
    if _CONFIG not in {file.path for file in artifact.files}:
        raise FoundryError(
            f"{artifact.kind}/{artifact.key[:_KEY_DIGITS]} is no model: it has no {_CONFIG}",
            "name a language model or a vision-language model",
        )
    return open_till_then.enter_context(store.reading(artifact))


def _generate(
    options: argparse.Namespace,
    folder: Path,
    config: "GenerationConfig",
    text: str,
    files: Sequence[tuple[str, bytes]],
) -> int:
    from foundry_core.data.images import decode_image
    from foundry_core.models.text_model import load_text_model

    images = [decode_image(data, name) for name, data in files]
    model = load_text_model(folder, device=_device(options.device), raw=options.raw)
    prompt = model.prompt(text, images)
    pieces: list[str] = []

    def show(piece: str) -> None:
        pieces.append(piece)
        if not options.json:
            sys.stdout.write(shown(piece))
            sys.stdout.flush()

    begun = time.monotonic()
    written = model.write(prompt, config, show)
    seconds = time.monotonic() - begun
    record = {
        "text": "".join(pieces),
        "ended": written.ended,
        "prompt_tokens": int(prompt.lengths[0]),
        "tokens": len(written.tokens),
        "seconds": round(seconds, 3),
    }
    if options.json:
        print_json(record)
        return 0
    print()
    rate = len(written.tokens) / seconds
    print(
        f"foundry: {len(written.tokens)} tokens after {record['prompt_tokens']}, {rate:.1f}/s, "
        f"{_ENDS[written.ended]}",
        file=sys.stderr,
    )
    return 0


def shown(text: str) -> str:
    """What a model wrote as any terminal can show it: line ends and tabs stay, control sequences
    stand escaped."""
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def _device(name: str) -> str:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise FoundryError(f"--device {name!r} is no device", "cpu, cuda, cuda:1 ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FoundryError(f"--device {name!r}: this machine has no GPU that torch sees", "use cpu")
    return name
