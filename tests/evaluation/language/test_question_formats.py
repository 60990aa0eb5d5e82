"""Records in the data sets' own fields → what lm-evaluation-harness asks of them."""

import json

import pytest

from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.evaluation.language.base import QUESTIONS

HELLASWAG = {
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man sits on a roof.",
    "ctx_b": "he",
    "endings": ["uses wrap [title] End", "is [step] ripping  tiles", "holds", "starts"],
    "label": 3,
    "ind": 24,
}
ARC = {
    "id": "Mercury_1",
    "question": {
        "stem": "What melts?",
        "choices": [{"text": "ice", "label": "A"}, {"text": "sand", "label": "B"}],
    },
    "answerKey": "B",
}
BOOLQ = {"question": "is it so", "title": "It", "passage": "It is so.", "answer": True}
WINOGRANDE = {
    "sentence": "Ann helped Bea because _ was kind.",
    "option1": "Ann",
    "option2": "Bea",
    "answer": "1",
}
PIQA = {"goal": "open a jar", "sol1": "turn the lid", "sol2": "eat the lid", "label": 0}


def asked(folder, name, *records, **options):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    source = validate(QUESTIONS.get(name), {"format": name, "path": str(path), **options}, "q")
    return [question for _, question in source.read()]


def test_hellaswag_is_cleaned_and_capitalised(tmp_path):
    (one,) = asked(tmp_path, "hellaswag", HELLASWAG)
    context = "Roof shingle removal: A man sits on a roof. He"
    assert one.asked[0] == (context, " uses wrap. End")
    assert one.choices[1] == "is ripping tiles"
    assert one.gold == 3 and len(one.asked) == 4


def test_arc_in_both_published_forms(tmp_path):
    hub = {
        "question": "What melts?",
        "choices": {"text": ["ice", "sand"], "label": ["A", "B"]},
        "answerKey": "B",
    }
    first, second = asked(tmp_path, "arc", ARC, hub)
    assert first == second
    context = "Question: What melts?\nAnswer:"
    assert first.asked == ((context, " ice"), (context, " sand"))
    assert first.gold == 1


def test_boolq_weighs_no_and_yes(tmp_path):
    glue = {"question": "is it so", "passage": "It is so.", "label": 0}
    first, second = asked(tmp_path, "boolq", BOOLQ, glue)
    context = "It is so.\nQuestion: is it so?\nAnswer:"
    assert first.asked == ((context, " no"), (context, " yes"))
    assert (first.gold, second.gold) == (1, 0)


def test_winogrande_weighs_what_stands_behind_the_blank(tmp_path):
    (one,) = asked(tmp_path, "winogrande", WINOGRANDE)
    assert one.asked == (
        ("Ann helped Bea because Ann", " was kind."),
        ("Ann helped Bea because Bea", " was kind."),
    )
    assert one.gold == 0


def test_piqa_with_labels_in_the_record_or_beside_it(tmp_path):
    bare = {name: value for name, value in PIQA.items() if name != "label"}
    labels = tmp_path / "labels.lst"
    labels.write_text("0\n1\n")
    (inside,) = asked(tmp_path, "piqa", PIQA)
    assert inside.asked[1] == ("Question: open a jar\nAnswer:", " eat the lid")
    first, second = asked(tmp_path, "piqa", bare, bare, labels=str(labels))
    assert first == inside and second.gold == 1
    with pytest.raises(FoundryError, match="not one label, 0 or 1, for each question"):
        asked(tmp_path, "piqa", bare, labels=str(labels))
    with pytest.raises(FoundryError, match="not one label, 0 or 1, for each question"):
        asked(tmp_path, "piqa", bare, bare, bare, labels=str(labels))


WRONG = {
    "arc": ({**ARC, "answerKey": "F"}, "'F' is not in list"),
    "boolq": ({"question": "q", "passage": "p", "answer": "maybe"}, "neither true nor false"),
    "hellaswag": ({**HELLASWAG, "label": 4}, "choice 4 is right, of 4"),
    "piqa": ({"goal": "g", "sol1": "a", "label": 0}, "it has no 'sol2'"),
    "winogrande": ({**WINOGRANDE, "sentence": "no blank"}, "no blank"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_record_of_another_form_is_named(tmp_path, name):
    record, problem = WRONG[name]
    with pytest.raises(FoundryError, match=problem) as caught:
        asked(tmp_path, name, record)
    assert f"{name}.jsonl@0" in caught.value.message


def test_every_format_is_found():
    assert QUESTIONS.names() == ["arc", "boolq", "hellaswag", "piqa", "winogrande"]
