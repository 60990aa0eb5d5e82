"""What past ablations answer: listed, shown in 80 columns, compared, on their page; and that what
is known is not run again, by one ablation or by two at once."""

import json
import sys
import threading
from pathlib import Path

import pytest

from flows.ablation import page
from flows.ablation.answer_text import compare_text, list_text, show_text
from flows.ablation.answers import compared, find, listed, shown
from flows.ablation.known import known_report
from flows.ablation.plan import plan_ablation
from flows.ablation.report import write_ablation_report
from flows.ablation.run import AblationRun
from flows.ablation.variants import AblationRequest, parse_variant, parse_vary
from flows.cli import main
from flows.runs.walk import StagesFailed
from foundry_core.errors import FoundryError
from foundry_core.home import store_uri
from foundry_core.lineage import queries
from foundry_core.store.open import open_store

EXAMS = str(Path(__file__).parents[2] / "kinds" / "exams_here.yaml")
SHORT = (("exam.episodes_per_task", 12),)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


def begun(*vary, variants=(), seeds=1, overrides=SHORT, **options):
    request = AblationRequest(
        pipeline=EXAMS,
        overrides=overrides,
        vary=tuple(map(parse_vary, vary)),
        variants=tuple(map(parse_variant, variants)),
        seeds=seeds,
        **options,
    )
    ablation = AblationRun(plan_ablation(request))
    ablation.start()
    return ablation


def execute(*vary, **options):
    ablation = begun(*vary, **options)
    try:
        ablation.walk()
    except StagesFailed:
        return ablation.finish("failed")
    return ablation.finish("succeeded")


def built(result):
    return sorted(stage["name"] for stage in result["stages"] if stage["attempt"])


def connection():
    return queries.connect()


@pytest.mark.slow("sixteen trainings and exams, each in its process")
def test_a_fourth_variant_and_a_fourth_seed_run_what_is_new_alone():
    execute("model.steps=10,20", seeds=3)
    more = execute("model.steps=10,20,40", seeds=3)
    assert built(more) == [
        *(f"steps=40/{seed}:{stage}" for seed in range(3) for stage in ("exam", "model")),
        "verdict",
    ]
    again = execute("model.steps=10,20,40", seeds=4)
    names = ("base", "steps=10", "steps=20", "steps=40")
    assert built(again) == [
        *(f"{name}/3:{stage}" for name in names for stage in ("exam", "model")),
        "verdict",
    ]


def test_two_at_once_that_share_stages_run_nothing_twice():
    runs = [begun("model.steps=10"), begun("model.steps=20")]
    results = {}

    def walk(ablation):
        ablation.walk()
        results[ablation.ablation_id] = ablation.finish("succeeded")

    threads = [threading.Thread(target=walk, args=(one,)) for one in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    query = "select kind, count(*) as n from attempt where state = 'committed' group by all"
    counts = {row["kind"]: row["n"] for row in queries.sql(connection(), query)}
    assert counts == {"emit": 1, "train": 3, "exam": 3, "verdict": 2}
    assert {one["status"] for one in results.values()} == {"succeeded"}


def test_the_list_and_the_whole_answer_fit_80_columns(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["foundry", "ablate", "exams"])  # said as it was typed
    result = execute("model.steps=10,20,40", seeds=2, question="How many steps?")
    rows = listed(connection())
    assert [(row["asks"], row["variants"], row["seeds"]) for row in rows] == [
        ("How many steps?", 4, 2)
    ]
    found = shown(connection(), open_store(store_uri()), "latest")
    text = show_text(found)
    assert max(map(len, (text + list_text(rows)).splitlines()[:-6])) <= 80
    for part in (
        *("How many steps?", "model.steps: 5", "by seed", "trend", "2 seeds of exams"),
        *("of work", "to repeat it:", "Python 3", "provisional"),
    ):
        assert part in text, f"{part}:\n" + text
    assert found["contrasts"][0]["decision"] in ("lower", "not separated")
    assert found["rates"]["base"].keys() == {"base/0", "base/1"}
    json.dumps(found)
    assert find(connection(), result["ablation_id"][-6:]) == result["ablation_id"]
    with pytest.raises(FoundryError, match="'nothing' is not an ablation"):
        find(connection(), "nothing")


def test_a_failing_variant_is_named_as_missing():
    result = execute("model.steps=20", variants=["bad:exam.fail=true"])
    found = shown(connection(), open_store(store_uri()), "latest")
    assert "“bad” has no verdict" in found["missing"][0]
    assert "told to fail" in found["missing"][0]
    assert "still counts in the correction" in show_text(found).replace("\n", " ")
    assert "told to fail" in write_ablation_report(result["ablation_id"]).read_text()


def test_two_are_compared_by_what_their_variants_set():
    execute("model.steps=10,20")
    execute("model.steps=20,40", overrides=())
    a, b = (row["ablation_id"] for row in reversed(listed(connection())))
    found = compared(connection(), open_store(store_uri()), a, b)
    pairs = {row["change"]: row for row in found["variants"]}
    assert set(pairs) == {"base", "model.steps = 10", "model.steps = 20", "model.steps = 40"}
    both = pairs["model.steps = 20"]
    assert both["difference"] == pytest.approx(both["b"]["success"] - both["a"]["success"])
    assert both["low"] < both["difference"] < both["high"]
    assert pairs["model.steps = 40"]["difference"] is None
    assert [(one["place"], one["path"]) for one in found["config"]] == [
        ("exam", "recipe.episodes_per_task")
    ]
    text = compare_text(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "episodes_per_task: 12 → 40" in text


def test_the_command_answers_in_words_and_json(capsys):
    execute("model.steps=10")
    assert main(["ablation", "ls"]) == 0
    assert "model.steps = 10" in capsys.readouterr().out
    assert main(["ablation", "show", "latest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base_pipeline"] == "exams"
    assert main(["ablation", "compare", "latest", "latest"]) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["ablation", "show", "none"]) == 2


def test_a_page_is_drawn_once_for_what_is_the_same():
    first = execute("model.steps=10")
    path = write_ablation_report(first["ablation_id"])
    again = execute("model.steps=10")
    assert built(again) == []
    assert known_report(again["comparison_key"]) == path
    assert known_report(None) is None


def test_the_page_has_the_curve_the_effects_the_graph_and_the_command():
    result = execute("model.steps=10,20", variants=["half:model.steps=10,model.rate=0.2"], seeds=2)
    text = write_ablation_report(result["ablation_id"]).read_text()
    for part in (
        *("How sure", "Success over model.steps", "Effects of the settings", "trend"),
        *("ran once for several", "all: text", "× 2 seeds", "To repeat it", "work done"),
    ):
        assert part in text, f"{part}:\n" + text


def test_names_of_merged_stages():
    assert page.split_name("steps=20/1:vla") == ("steps=20", "vla")
    assert page.split_name("base:vla: loss, held out") == ("base", "vla: loss, held out")
    assert page.split_name("verdict") == ("", "verdict")


def test_seeds_of_a_variant_are_one_curve_and_one_box():
    losses = {f"{name}/{s}:vla": {"loss": [(0, 1.0), (9, s)]} for name in "ab" for s in (0, 1)}
    ((title, body),) = page.curves(losses)
    assert title == "Training curves"
    assert body.count("<svg") == 1
    nodes = [
        {"name": f"{name}/{s}:{stage}", "kind": stage, "key": f"{stage}{name}{s}", "action": "run"}
        for name in "ab"
        for s in (0, 1)
        for stage in ("vla",)
    ] + [{"name": "a/0:text", "kind": "text", "key": "t", "action": "run"}]
    edges = [{"source": "a/0:text", "target": one["name"], "label": ""} for one in nodes[:4]]
    users = {one["key"]: {one["name"][0]} for one in nodes[:4]} | {"t": {"a", "b"}}
    svg = page.merged_graph(nodes, edges, users)
    assert svg.count('class="fl-node ') == 3
    assert svg.count('class="fl-node fl-shared"') == 1
    assert svg.count('class="fl-edge"') == 2


def test_episodes_that_end_differently_stand_side_by_side(tmp_path):
    for variant, outcomes in {"base": ("success", "failure"), "b": ("failure", "failure")}.items():
        for scenario, outcome in enumerate(outcomes):
            film = tmp_path / variant / "frames" / "push" / f"{scenario:06d}_{outcome}.png"
            film.parent.mkdir(parents=True, exist_ok=True)
            film.write_bytes(b"png")
    video = tmp_path / "b" / "records" / "videos" / "push" / "000000_failure.webp"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"webp")
    ((_, body),) = page.side_by_side({name: tmp_path / name for name in ("base", "b")})
    assert "push, scenario 0" in body
    assert "scenario 1" not in body
    assert body.count("<figure>") == 2
    assert body.count("data:image/webp") == 1, "the video where there is one"
    ((_, alike),) = page.side_by_side({"b": tmp_path / "b"})
    assert "end alike" in alike
    assert page.side_by_side({}) == []
