"""What reports show of models' exams and of what policies look at."""

import json
from types import SimpleNamespace

import duckdb
import pytest

from flows.reports.looking import looking_section, quality_section

COLUMNS = (
    *("llm_loss", "bits_per_byte", "caption_loss", "caption_f1", "pixel_error_px"),
    *("offset_error_cm", "vqa_accuracy", "action_error_mm", "success_rate", "low", "high"),
)


@pytest.fixture
def connection():
    numbers = ", ".join(f"{name} double" for name in COLUMNS)
    with duckdb.connect() as found:
        found.execute(
            f"create table stage_quality (run_id varchar, stage varchar, n int, {numbers})"
        )
        yield found


def add(connection, run_id, stage, n, **values):
    numbers = [values.get(name) for name in COLUMNS]
    marks = ", ".join("?" * (3 + len(COLUMNS)))
    connection.execute(f"insert into stage_quality values ({marks})", [run_id, stage, n, *numbers])


def test_columns_that_say_nothing_are_left_out(connection):
    add(
        connection,
        "r",
        "evaluate",
        80,
        llm_loss=3.25,
        caption_f1=0.5,
        success_rate=0.9,
        low=0.8,
        high=0.95,
    )
    add(connection, "r", "evaluate_blind", 80, llm_loss=3.25, success_rate=0.25, low=0.1, high=0.4)
    add(connection, "other", "evaluate", 80, vqa_accuracy=1.0)
    ((title, html),) = quality_section(connection, "r")
    assert title == "From language to success"
    assert "LLM loss, nats per token" in html and "caption F1" in html
    assert "VQA" not in html and "action error" not in html
    assert "90 % of 80 [80, 95]" in html and "25 % of 80 [10, 40]" in html


def test_the_error_of_actions_is_named_where_one_was_measured(connection):
    add(connection, "r", "evaluate", 80, action_error_mm=4.5)
    ((_, html),) = quality_section(connection, "r")
    assert "action error, mm" in html and "its action error on held-out episodes" in html


def test_a_run_without_exams_has_no_such_table(connection):
    add(connection, "r", "evaluate", 80, success_rate=0.9)
    assert quality_section(connection, "r") == []


EPISODE = {
    "task": "pull",
    "scenario": 3,
    "success": False,
    "unit": "mm",
    "picture": "pull.png",
    "moments": [
        {
            "cameras": {"top": {"whole": 10.0}},
            "sentence": 4.0,
            "words": [["pull", 1.0], ["<it>", 0.0]],
        },
        {
            "cameras": {"top": {"whole": 20.0}},
            "sentence": 6.0,
            "words": [["pull", 3.0], ["<it>", 0.0]],
        },
    ],
}


def test_pictures_stand_beside_what_moves_the_chunk(tmp_path):
    folder = tmp_path / "records" / "attribution"
    folder.mkdir(parents=True)
    (folder / "attribution.json").write_text(json.dumps({"episodes": [EPISODE]}))
    (folder / "pull.png").write_bytes(b"png")

    def file_path(artifact, name):
        path = tmp_path / artifact.key / name if artifact.key == "none" else tmp_path / name
        return path if path.is_file() else None

    store = SimpleNamespace(file_path=file_path)
    seen, plain = (SimpleNamespace(kind="evaluate", key=key) for key in ("k", "none"))
    ((title, html),) = looking_section(store, {"a": seen, "b": plain}, {"k": "policy"})
    assert title == "Is it looking?"
    assert html.count("<figure>") == 1 and "data:image/png;base64,cG5n" in html
    assert "<b>policy</b> pull, scenario 3: failure." in html
    assert "The chunk moves without top 15 mm; without “pull” 2 mm, “&lt;it&gt;” 0 mm" in html
    assert "without the sentence 5 mm." in html
    assert looking_section(store, {"b": plain}, {}) == []
