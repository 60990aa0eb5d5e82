"""What a training leaves of its validations beside their rows: what they were of, and the last
measures as the lineage knows measures."""

from collections.abc import Mapping
from pathlib import Path

from foundry_core.files import write_json, write_json_lines
from foundry_core.training.validation.measures import overall
from foundry_core.training.validation.validator import Validator

FILE = "held_out.json"


def write_held_out(records: Path, validator: Validator, measures: Mapping[str, float]) -> None:
    """records/held_out.json: how many samples of each dataset are read, of how many, from how many
    episodes or documents; what a gripper's error is a share of. records/measures.jsonl: the
    measures of whole modalities, by <whose>/<modality>/<measure>; n counts samples."""
    read = validator.held_out.facts()
    gripper = validator.baselines.ruler.gripper if validator.baselines else ""
    records.mkdir(parents=True, exist_ok=True)
    write_json(records / FILE, {"read": read, "gripper": gripper}, durable=False)
    counts = {name: sum(one["samples"] for one in of.values()) for name, of in read.items()}
    rows = [
        {
            "task": f"validation/{whose}/{modality}",
            "name": measure,
            "value": measures[f"{whose}/{modality}/{measure}"],
            "n": counts[modality],
        }
        for whose, modality, measure in overall(measures)
    ]
    write_json_lines(records / "measures.jsonl", rows)
