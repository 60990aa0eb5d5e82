"""Other words for what episodes say, from a file: {task: [texts]} in YAML or JSON."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from foundry_core.config.parsing import parse_yaml
from foundry_core.errors import FoundryError

KIND = "paraphrase"
Paraphrases = Mapping[str, tuple[str, ...]]
_FORM = TypeAdapter(dict[str, tuple[str, ...]])


def read_paraphrases(path: str) -> Paraphrases:
    """FoundryError for a file that is not there, or holds anything else, empty texts included."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FoundryError(f"there is no file of paraphrases {path!r}", "give a YAML or JSON file")
    try:
        text = file.read_text(encoding="utf-8")
        held = json.loads(text) if file.suffix == ".json" else parse_yaml(text, path)
        found = _FORM.validate_python(held)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FoundryError(
            f"{path}: {where}: {first['msg']}", "it maps tasks to lists of texts"
        ) from error
    except ValueError as error:
        raise FoundryError(f"{path} is not readable: {error}", "save it as UTF-8") from error
    empty = [task for task, texts in found.items() if not texts or not all(map(str.strip, texts))]
    if empty or not found:
        raise FoundryError(
            f"{path}: {empty[0]!r} has an empty text, or none" if empty else f"{path} is empty",
            "it maps tasks to lists of texts",
        )
    return found


def paraphrased(
    task: str, instructions: Mapping[str, list[str]], paraphrases: Paraphrases
) -> dict[str, list[str]]:
    """The instructions with those of the file as a kind of their own, `paraphrase`. A line of the
    file is for the episodes of a task, by its name or by any of their words."""
    told = [text for texts in instructions.values() for text in texts]
    names = dict.fromkeys((task, *told))
    added = [text for name in names for text in paraphrases.get(name, ())]
    new = [text for text in dict.fromkeys(added) if text not in told]
    return {**instructions, KIND: [*instructions.get(KIND, ()), *new]} if new else {**instructions}
