"""What an imported checkpoint has beside weights and tokenizer, kept through training for the day
it is exported again. Torch-free."""

import shutil
from pathlib import Path

PROCESSOR = "processor"
"""Folder of an artifact that holds these files as they were."""
_KEPT = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
)


def processor_of(artifact: Path | None) -> Path | None:
    """The folder of processor files in a model's artifact."""
    if artifact is None or not (artifact / PROCESSOR).is_dir():
        return None
    return artifact / PROCESSOR


def keep_processor(folder: Path, out: Path) -> None:
    """Copies the processor files in `folder`, a checkpoint or an artifact's, to `out`/processor."""
    found = [folder / name for name in _KEPT if (folder / name).is_file()]
    if found:
        (out / PROCESSOR).mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copyfile(path, out / PROCESSOR / path.name)
