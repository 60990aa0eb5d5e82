"""Forms of the deployments, and what a run shows where a server is configured."""

import json

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from flows import foundry
from flows.ablation.drivers.base import DRIVERS
from flows.ablation.space import Choices, Range
from flows.ablation.variants import Sample
from flows.cli import main
from flows.console import markdown_table
from flows.deployment import artifacts, settings
from flows.deployment.forms import (
    WITH_PATHS,
    Axis,
    Drawn,
    DriverName,
    NamedVariant,
    Override,
    PipelineName,
    ablation_request,
    request,
    search_request,
)
from flows.dispatch.base import BACKENDS
from flows.prefect.page import publish
from foundry_core.config.documents import find_pipeline, pipeline_names
from foundry_core.errors import FoundryError

pytestmark = pytest.mark.usefixtures("known_code")


def test_values_are_yaml_and_numbers_are_taken_as_typed():
    typed = Override(path=" vla.data.robot.batch_size ", value=16).pair()
    assert typed == ("vla.data.robot.batch_size", 16)
    assert Override(path="a.b", value="1e-3").pair() == ("a.b", 1e-3)
    assert Override(path="a.b", value=True).pair() == ("a.b", True)
    assert Axis(path="a.b", values="100, 2e2, [x, y]").vary().values == (100, 200.0, ["x", "y"])
    with pytest.raises(FoundryError, match=r"override 'a\.b'"):
        Override(path="a.b", value="[1").pair()


@pytest.mark.parametrize(
    ("form", "content"),
    [
        (Override, {"path": "a", "value": "1", "vaule": "2"}),
        (Axis, {"path": "a", "value": "1"}),
        (Drawn, {"path": "a", "values": "1", "log": True}),
        (NamedVariant, {"name": "v", "overrides": []}),
        (NamedVariant, {"name": "v", "overrides": [{"path": "a", "value": "1", "x": 1}]}),
    ],
)
def test_a_typing_error_is_refused_at_every_level(form, content):
    with pytest.raises(ValidationError):
        form.model_validate(content)


def test_requests_are_those_of_the_command_line():
    demo = PipelineName("demo")
    change = [Override(path="llm.training.steps", value="5")]
    found = request(demo, change, ["vla"], [])
    assert (found.pipeline, found.overrides, found.only) == (
        "demo",
        (("llm.training.steps", 5),),
        ("vla",),
    )
    asked = ablation_request(
        demo,
        [Axis(path="llm.training.steps", values="5, 10")],
        [NamedVariant(name="small", overrides=change)],
        3,
        [],
        "",
    )
    assert asked.title == "ablation llm.training.steps ×2; small; seeds ×3"
    assert asked.evaluation is None
    assert asked.variants[0].overrides == (("llm.training.steps", 5),)
    assert asked.design is None
    linear = {"spending": "linear", "family": "best"}
    asked = ablation_request(demo, [], [], 1, [], "", looks=4, **linear)
    assert (asked.design.looks, asked.design.spending, asked.design.family) == (4, "linear", "best")
    asked = ablation_request(demo, [], [], 3, [], "", looks=0, **linear)
    assert asked.design is None, "a form always states them; without looks they say nothing"


@pytest.mark.parametrize(
    ("typed", "values"),
    [("1, 2, 4", (1, 2, 4)), ("[1, 2]", (1, 2)), ("[[a, b], [c]]", (["a", "b"], ["c"])), (3, (3,))],
)
def test_a_setting_to_draw_from_is_choices(typed, values):
    path, choices = Drawn(path="a.b (1 in demo)", values=typed).dimension()
    assert (path, choices) == ("a.b", Choices(values=values))


def test_or_a_range_and_nothing_else():
    typed = Drawn(path="a.b", values="{low: 1e-4, high: 1e-2, log: true}")
    assert typed.dimension() == ("a.b", Range(low=1e-4, high=1e-2, log=True))
    with pytest.raises(FoundryError, match=r"space 'a\.b'.*hgh"):
        Drawn(path="a.b", values="{low: 1, hgh: 2}").dimension()
    with pytest.raises(FoundryError, match=r"space 'a\.b'.* 1 is named twice"):
        Drawn(path="a.b", values="1, 1").dimension()


def test_a_sample_of_a_space_is_drawn_as_by_the_command_line():
    drawn = [Drawn(path="llm.training.steps", values="{low: 1, high: 9}")]
    demo = PipelineName("demo")
    asked = ablation_request(demo, [], [], 1, [], "", space=drawn, sample=3, sample_seed=2)
    space = {"llm.training.steps": Range(low=1, high=9)}
    assert asked.sample == Sample(space=space, number=3, seed=2)
    assert ablation_request(demo, [], [], 1, [], "").sample is None
    with pytest.raises(FoundryError, match=r"'llm\.training\.steps' is given twice"):
        ablation_request(demo, [], [], 1, [], "", space=drawn * 2, sample=3)


def test_a_search_is_that_of_the_command_line(capsys):
    drawn = [Drawn(path="llm.training.steps", values="{low: 100, high: 900}")]
    rungs = [Axis(path="vla.training.steps", values="5, 9")]
    options = {"reduction": 2, "finalists": 2, "batch": 3, "search_seed": 4, "looks": 2}
    demo, driver = PipelineName("demo"), DriverName("random")
    asked = search_request(demo, drawn, 4, driver, rungs, 3, [], "", **options, spending="linear")
    line = ["search", "demo", "--space", "llm.training.steps={low: 100, high: 900}"]
    line += ["--rungs", "vla.training.steps=5,9", "--variants", "4", "--driver", "random"]
    line += ["--reduction", "2", "--finalists", "2", "--batch", "3", "--search-seed", "4"]
    line += ["--looks", "2", "--spending", "linear", "--seeds", "3", "--dry-run", "--json"]
    assert main(line) == 0
    assert json.loads(capsys.readouterr().out)["search"] == asked.id


def test_a_search_takes_a_studys_space_and_number(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(
        "question: Which rate?\npipeline: demo-fast\nsample: 4\nbase: {llm.training.steps: 5}\n"
        "space: {vla.model.tap_layers: [1, 2]}\n"
    )
    drawn = [Drawn(path="vlm.training.steps", values="{low: 1, high: 9}")]
    more = [Override(path="vla.training.steps", value="6")]
    asked = search_request(
        PipelineName("demo"), drawn, 0, DriverName("random"), [], 1, more, "", study=str(path)
    )
    assert (asked.base.pipeline, asked.variants, asked.budgets) == ("demo-fast", 4, None)
    assert asked.base.overrides == (("llm.training.steps", 5), ("vla.training.steps", 6))
    assert list(asked.space) == ["vla.model.tap_layers", "vlm.training.steps"]
    assert asked.base.question == "Which rate?"
    with pytest.raises(FoundryError, match="'demo' is a pipeline and no study"):
        search_request(
            PipelineName("demo"), drawn, 0, DriverName("random"), [], 1, [], "", study="demo"
        )


@pytest.mark.parametrize("form", [foundry.full, foundry.ablation, foundry.search])
def test_the_deployments_are_one_flow_with_a_form_each(form):
    assert form.name == "foundry"
    schema = form.parameters.model_dump_for_openapi()
    assert schema.get("required", []) == []
    assert all(field.get("description") for field in schema["properties"].values())


def test_forms_offer_what_is_installed_and_refuse_the_rest():
    schema = foundry.ablation.parameters.model_dump_for_openapi()
    assert schema["definitions"]["PipelineName"]["enum"] == pipeline_names()
    assert schema["definitions"]["DispatchName"]["enum"] == BACKENDS.names()
    assert schema["definitions"]["Override"]["additionalProperties"] is False
    schema = foundry.search.parameters.model_dump_for_openapi()
    assert schema["definitions"]["DriverName"]["enum"] == DRIVERS.names()
    assert schema["properties"]["rungs"]["maxItems"] == 1


def test_paths_are_chosen_with_their_values_and_ranges_or_typed():
    plain = foundry.ablation.parameters.model_dump_for_openapi()
    schema = settings.with_choices(plain, WITH_PATHS)
    for form in WITH_PATHS:
        listed, typed = schema["definitions"][form]["properties"]["path"]["anyOf"]
        assert typed == {"title": "Write", "type": "string"}
        chosen = [one for one in listed["enum"] if one.startswith("llm.training.steps (")]
        assert chosen == [
            "llm.training.steps (200 in demo, 8 in demo-fast, null in foundry-vla-1.7b)"
        ]
    assert "anyOf" not in plain["definitions"]["Axis"]["properties"]["path"]
    texts = {settings.path_of(one): one for one in listed["enum"]}
    assert texts["llm.training.optimizer.lr"].endswith("; > 0)")
    assert texts["evaluate.episodes_per_task"] == (
        "evaluate.episodes_per_task (25 in demo, 2 in demo-fast, 50 in lbm; ≥ 1)"
    )
    axis = Axis(path=texts["llm.training.optimizer.lr"], values="1e-3, 2e-3").vary()
    assert (axis.path, axis.values) == ("llm.training.optimizer.lr", (1e-3, 2e-3))
    assert Override(path=texts["vla.training.steps"], value="5").pair()[0] == "vla.training.steps"


def test_the_verdicts_table_is_narrow_and_says_all():
    common = {"low": 0.4, "high": 0.6, "n": 80, "p_value": None, "letters": "a", "success": 0.5}
    long = "learning_rate=0.0001,weight_decay=0.1,warmup=50"
    effects = [
        {**common, "variant": "base", "path": None, "old": None, "new": None,
         "decision": "the base"},
        {**common, "variant": long, "path": "a.b", "old": 1, "new": 2, "p_value": 0.0123,
         "decision": "not separated from the base"},
        {**common, "variant": "bad", "path": "a.b", "old": 1, "new": 3, "success": None,
         "letters": None, "decision": "no verdict: stage 'x' failed: ValueError\nTraceback"},
    ]  # fmt: skip
    text = artifacts.verdict_markdown(effects)
    table, notes = text.split("\n\n")
    assert max(map(len, table.splitlines())) <= 100
    assert "| 50.0 % of 80 | 40–60 | 0.012 | not separated | a |" in table
    assert f"- **{long}**: a.b: 1 → 2; not separated from the base" in notes
    assert "- **bad**: a.b: 1 → 3; no verdict: stage 'x' failed: ValueError" in notes
    assert "Traceback" not in notes


def test_a_labs_own_pipelines_are_offered_beside_ours(tmp_path, monkeypatch):
    (tmp_path / "ours.yaml").write_text("stages: {}\n")
    monkeypatch.setenv("FOUNDRY_PIPELINES", str(tmp_path))
    assert {"ours", "demo"} <= set(pipeline_names())
    assert find_pipeline("ours") == tmp_path / "ours.yaml"
    with pytest.raises(FoundryError, match="unknown pipeline 'owrs'"):
        find_pipeline("owrs")


def test_without_a_server_nothing_is_published():
    def create(**content):
        raise AssertionError("published")

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert not artifacts.configured()
        publish(create, key="plan")
        assert artifacts.progress_of("0" * 64) is None


def test_pictures_are_drawn_on_white_and_large_ones_left_out():
    svg = artifacts.on_white("<svg><title>t</title><g/></svg>")
    assert svg == b'<svg><title>t</title><rect width="100%" height="100%" fill="#fff"/><g/></svg>'
    assert artifacts._image("png", b"abc", "x") == "![x](data:image/png;base64,YWJj)"
    assert "see the report" in artifacts._image("png", bytes(600_000), "x")


def test_lines_of_a_console_become_log_messages():
    said = []
    print("model: starts\n\nmodel: done", file=artifacts.LogLines(said.append))
    assert said == ["model: starts", "model: done"]


def test_cells_cannot_break_a_table():
    assert markdown_table([["a"], ["x|y"]]) == "| a |\n| --- |\n| x¦y |\n"
