"""The folder that `foundry eval compare --out` writes."""

from pathlib import Path

from foundry_core.evaluation.comparison.pictures import pictures
from foundry_core.evaluation.comparison.result import FILE, Comparison
from foundry_core.evaluation.comparison.sentences import verdict
from foundry_core.evaluation.comparison.tables import as_csv, markdown
from foundry_core.files import write_atomic, write_json

_FORMS = ("svg", "png")


def write_all(folder: Path, comparison: Comparison) -> None:
    """comparison.json, .csv and .md (tables and verdict), and every picture as .svg and .png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILE, comparison.to_json(), durable=False)
    write_atomic(folder / "comparison.csv", as_csv(comparison), durable=False)
    text = f"{markdown(comparison)}\n{verdict(comparison)}\n"
    write_atomic(folder / "comparison.md", text, durable=False)
    for name, picture in pictures(comparison).items():
        for form, data in zip(_FORMS, picture.render(*_FORMS), strict=True):
            write_atomic(folder / f"{name}.{form}", data, durable=False)
