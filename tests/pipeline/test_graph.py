import pytest
import yaml

from foundry_core.errors import FoundryError
from tests.support import WORDS, words


def document():
    return yaml.safe_load(WORDS.read_text())


def test_stages_are_in_topological_order_and_inherit_the_seed():
    pipeline = words("model.seed=9")
    names = list(pipeline.stages)
    assert names.index("first") < names.index("model")
    assert names.index("second") < names.index("total")
    assert pipeline.stages["first"].seed == 3
    assert pipeline.stages["model"].seed == 9
    assert sorted(pipeline.targets) == ["model", "total"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("first.wrod=x", r"unknown key 'first.wrod'.*did you mean 'word'"),
        ("frist.word=x", r"no stage 'frist'.*did you mean 'first'"),
        ("first.lines=many", r"first.lines = 'many'"),
        ("first.resources.cpu=2", r"unknown key 'first.resources.cpu'.*did you mean 'cpus'"),
        ("first.seed=-1", r"first.seed = -1"),
        ("model.inputs.text=total", r"produces Evaluation, the slot takes TextShards"),
        ("model.inputs.text=nothing", r"unknown stage 'nothing'"),
        ("model.inputs.txt=first", r"no input 'txt'.*did you mean 'text'"),
        ("first.kind=emitt", r"emitt"),
        ("model.inputs.text=null", r"needs input 'text'"),
        ("model.inputs.text=[first, second]", r"takes one stage, not 2"),
        ("first", r"is not PATH=VALUE"),
    ],
)
def test_mistakes_are_one_clear_error(override, message):
    with pytest.raises((FoundryError, KeyError), match=message):
        words(override)


def test_a_circle_is_named():
    doc = document()
    doc["stages"]["a"] = {"kind": "emit"}
    doc["stages"]["loop"] = {"kind": "train", "inputs": {"text": "loop"}}
    with pytest.raises(FoundryError, match=r"produces|circle"):
        words(document=doc)


def test_dropped_stage_and_unknown_top_key():
    doc = document()
    doc["stages"]["second"] = None
    doc["stages"]["total"]["inputs"]["texts"] = "first"
    assert "second" not in words(document=doc).stages
    with pytest.raises(FoundryError, match="did you mean 'stages'"):
        words(document=doc | {"stagse": {}})


def test_labels_of_many_slots():
    pipeline = words("total.inputs.texts={left: first, right: second}")
    assert pipeline.stages["total"].inputs["texts"] == {"left": "first", "right": "second"}
