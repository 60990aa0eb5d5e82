"""Published results in the store: imported once, named, compared with our own, in SQL."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from flows.reports.run_report import gather
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import EvaluationFacts, read_facts
from foundry_core.evaluation.score import Evaluation, read_evaluation
from foundry_core.files import sha256_of
from foundry_core.lineage import queries
from foundry_core.store.local import LocalStore
from foundry_core.store.open import open_store
from foundry_core.store.references import find, set_alias
from tests.conftest import REPOSITORY
from tests.evaluation.published import lbm_tree, put_vla, vla_document, vla_episode
from tests.runs import Forked

EXAMS = REPOSITORY / "tests" / "kinds" / "exams.yaml"
GUIDE = REPOSITORY / "docs" / "eval.md"


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


@pytest.fixture
def store(home):
    return open_store(str(home / "store"))


@pytest.fixture
def tree(tmp_path):
    return lbm_tree(tmp_path / "published", {"big": 30, "small": 4})


def foundry(capsys, *words, code=0):
    """What a command prints: JSON, or of a refusal the line."""
    capsys.readouterr()
    assert main(["eval", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def sql(query):
    main(["lineage", "runs", "--json"])
    with queries.connect() as connection:
        return queries.sql(connection, query)


def run(document, folder):
    """A pipeline to its end, stage after stage; the run."""
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(document))
    under_way = PipelineRun(prepare(Request(pipeline=str(path))))
    under_way.start()
    for name in under_way.affected():
        under_way.stage(name)
    assert under_way.finish("succeeded")["status"] == "succeeded"
    return under_way


def run_of_one(capsys, folder):
    """A run whose only stage is an evaluation called exam; nothing needs to be executed."""
    mine = lbm_tree(folder / "mine", {"exam": 20})
    (one,) = foundry(capsys, "import", mine)["models"]
    exam = {"import": {"key": one["key"], "kind": "evaluate", "digest": one["digest"]}}
    return run({"name": "exams", "stages": {"exam": exam}}, folder)


def _die_at_the_commit(tree):
    LocalStore.commit = lambda *arguments, **more: os._exit(9)
    main(["eval", "import", str(tree)])


def test_each_model_becomes_an_evaluation_that_stands_alone(capsys, store, tree):
    found = foundry(capsys, "import", tree, "--name", "paper")
    assert (found["format"], found["budget"], found["applied"]) == ("lbm", 40, True)
    big, small = found["models"]
    assert (big["model"], big["name"], big["tasks"], big["known"]) == ("big", "big@paper", 2, False)
    assert (big["n"], big["successes"], big["crashes"]) == (78, 60, {"disk full": 2})
    artifact = find(store, "small@paper")
    assert (artifact.kind, artifact.key, artifact.code) == ("evaluate", small["key"], "imported")
    assert store.verify("evaluate", artifact.key).status == "ok"
    said = artifact.provenance["imported"]
    results = sorted((tree / "small").rglob("results.json"))
    assert said["files"] == {str(path): sha256_of(path) for path in results}
    assert (said["source"], said["format"], said["model"]) == (str(tree), "lbm", "small")
    copies = {f.path: f.sha256 for f in artifact.files if f.path.startswith("source/")}
    below = {str(path.relative_to(tree / "small")): sha256_of(path) for path in results}
    assert copies == {f"source/{name}": digest for name, digest in below.items()}
    folder = store.files_path(artifact)
    facts = read_facts(folder)
    assert facts == EvaluationFacts(
        first_scenario=0,
        episodes_per_task=40,
        imported=facts.imported,
    )
    assert (facts.imported.format, facts.imported.model) == ("lbm", "small")
    found = read_evaluation(folder)
    outcomes = found.outcomes
    assert found.causes == {"disk full": 2}
    assert set(outcomes) == {"Add", "Sort"}
    assert [outcomes["Add"][i] for i in (0, 3, 4, 39)] == [True, True, False, None]
    rows = [json.loads(line) for line in (folder / "records" / "episodes.jsonl").open()]
    assert len(rows) == 80
    assert (rows[39]["crash"], rows[39]["success"], rows[0]["seconds"]) == ("disk full", None, 1.5)


def test_sql_knows_scores_and_episodes(capsys, tree):
    foundry(capsys, "import", tree)
    rates = sql(
        """select e.n, e.crashed, e.success_rate, a.code from eval_scores e
        join artifact a using (key) where e.task = 'all' order by e.success_rate"""
    )
    assert [(r["n"], r["crashed"], r["code"]) for r in rates] == [(78, 2, "imported")] * 2
    assert [r["success_rate"] for r in rates] == pytest.approx([8 / 78, 60 / 78])
    causes = sql(
        "select crash, count(*) as n, sum(seconds) as s from episode group by all order by n"
    )
    assert causes == [
        {"crash": "disk full", "n": 4, "s": 6.0},
        {"crash": None, "n": 156, "s": 234.0},
    ]
    assert main(["lineage", "rebuild", "--json"]) == 0
    assert len(sql("select 1 from episode")) == 160


def test_the_same_results_come_in_once_from_wherever_they_are(capsys, store, tree, tmp_path):
    first = foundry(capsys, "import", tree)["models"]
    moved = shutil.move(tree, tmp_path / "elsewhere")
    second = foundry(capsys, "import", moved, "--name", "paper")["models"]
    assert [one["key"] for one in second] == [one["key"] for one in first]
    assert [one["known"] for one in second] == [True, True]
    assert len(store.artifacts()) == 2
    assert main(["eval", "import", str(moved)]) == 0
    assert capsys.readouterr().out.count("is there already") == 2
    (moved / "small" / "Add" / "rollouts").rename(moved / "small" / "Add" / "moved")
    shutil.copytree(moved / "small" / "Sort", moved / "small2" / "Sort")
    shutil.rmtree(moved / "small")
    third = foundry(capsys, "import", moved)["models"]
    assert [one["known"] for one in third] == [True, False]


def test_a_dry_run_tells_and_leaves_nothing(capsys, store, tree):
    shown = foundry(capsys, "import", tree, "--name", "paper", "--dry-run")
    assert store.artifacts() == [] and store.documents.names("aliases") == []
    done = foundry(capsys, "import", tree)
    assert [one["key"] for one in shown["models"]] == [one["key"] for one in done["models"]]
    again = foundry(capsys, "import", tree, "--dry-run")
    assert (again["applied"], [one["known"] for one in again["models"]]) == (False, [True, True])


def test_one_name_for_one_model_and_no_other_words(capsys, store, tree):
    answer = foundry(capsys, "import", tree, "--name", "one@paper", code=2)
    assert "one name for 2 models" in answer["error"]
    assert "expected name@tag" in foundry(capsys, "import", tree, "--name", "a b", code=2)["error"]
    assert store.artifacts() == []
    foundry(capsys, "import", tree / "big", "--name", "one@paper")
    assert find(store, "one@paper").provenance["imported"]["model"] == "big"


def test_a_wrong_file_is_one_line_and_nothing_comes_in(capsys, store, tree):
    (path, *_) = sorted(tree.rglob("results.json"))
    path.write_text("{")
    assert main(["eval", "import", str(tree)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said
    assert store.artifacts() == []


def test_a_damaged_import_is_mended_by_the_next(capsys, store, tree):
    (one,) = foundry(capsys, "import", tree / "big", "--name", "big@paper")["models"]
    (store.path("evaluate", one["key"]) / "evaluation.json").write_text("{}")
    assert store.state("evaluate", one["key"]).status == "corrupt"
    document = yaml.safe_load(EXAMS.read_text())
    pinned = {"alias": "big@paper", "kind": "evaluate", "digest": one["digest"]}
    document["stages"] = {"big": {"import": pinned}}
    with pytest.raises(FoundryError, match="was imported, and its files are not what they were"):
        run(document, tree)
    (again,) = foundry(capsys, "import", tree / "big")["models"]
    assert (again["key"], again["known"]) == (one["key"], False)
    assert store.verify("evaluate", one["key"]).status == "ok"


def test_a_pipeline_compares_it_with_an_evaluation_of_ours(capsys, store, tree, tmp_path):
    assert main(["eval", "import", str(tree), "--name", "paper"]) == 0
    lines = capsys.readouterr().out.partition("in a pipeline:\n")[2]
    document = yaml.safe_load(EXAMS.read_text())
    document["stages"]["model"].pop("resources")
    document["stages"] |= yaml.safe_load(lines)
    document["stages"]["compared"] = {
        "kind": "compare",
        "recipe": {"base": "small"},
        "inputs": {"evaluations": {"small": "small", "big": "big", "ours": "exam"}},
    }
    under_way = run(document, tmp_path)
    compared = store.read("compare", under_way.prepared.specs["compared"].key)
    found = json.loads((store.files_path(compared) / "comparison.json").read_text())
    assert found["tasks"] == ["add", "sort"]
    by_label = {one["variant"]: one for one in found["differences"]}
    assert by_label["big"]["decision"] == "better" and by_label["big"]["pairs"] == 78
    assert by_label["ours"]["pairs"] == 78, "scenario by scenario, crashes left out"
    assert sorted(i.label for i in compared.inputs) == ["big", "ours", "small"]
    key = compared.key
    assert len(sql(f"select 1 from upstream('{key}') where kind = 'evaluate'")) == 2
    assert gather(under_way.run_id).unequal == [], "an import asks nothing else, it says nothing"


def test_an_import_killed_half_way_is_done_by_the_next(capsys, store, tree):
    forked = Forked(_die_at_the_commit, tree / "big")
    forked.process.join()
    assert (forked.process.exitcode, store.artifacts()) == (9, [])
    (one,) = foundry(capsys, "import", tree / "big")["models"]
    assert not one["known"] and store.verify("evaluate", one["key"]).status == "ok"
    assert sql("select count(*) as n from artifact") == [{"n": 1}]
    assert store.abandoned(one["key"]) == []


def test_sources_by_key_name_and_run(capsys, store, tree, tmp_path):
    under_way = run_of_one(capsys, tmp_path)
    (small,) = foundry(capsys, "import", tree / "small", "--name", "small@paper")["models"]
    one = foundry(capsys, "compare", small["key"][:16], tree / "big", "--base", "small")
    assert one["labels"] == ["small", "big"]
    two = foundry(capsys, "compare", "small@paper", f"ours={under_way.run_id}")
    assert two["labels"] == ["small@paper", "ours"]
    assert two["budgets"] == {"small@paper": 40, "ours": 40}
    assert two["crashes"] == {label: {"disk full": 2} for label in two["labels"]}
    assert two["unequal"] == []
    three = foundry(capsys, "compare", tree, under_way.run_id)
    assert three["labels"] == ["big", "small", "exam"]
    refused = foundry(capsys, "compare", tree, "nowhere", code=2)
    assert "'nowhere' is no path, no artifact and no run" in refused["error"]
    assert main(["lineage", "trace", small["key"][:12]]) == 0


def test_an_artifact_of_another_kind_is_no_evaluation(capsys, tree, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a").write_text("1")
    assert main(["lineage", "import", "emit", str(tmp_path / "text"), "--name", "text@1"]) == 0
    refused = foundry(capsys, "compare", tree, "text@1", code=2)
    assert "is no evaluation: it has no evaluation.json" in refused["error"]


def test_warnings_go_beside_the_table(capsys, tree, tmp_path):
    other = lbm_tree(tmp_path / "other", {"m": 3})
    for path in other.rglob("results.json"):
        document = json.loads(path.read_text())
        document["evaluations"] = document["evaluations"][5:]
        path.write_text(json.dumps(document))
    capsys.readouterr()
    assert main(["eval", "compare", str(tree / "big"), str(other)]) == 0
    said = capsys.readouterr()
    assert said.err == "warning: first_scenario differs: 0 in big; 5 in m\n"
    assert "first_scenario" not in said.out


def test_every_command_of_the_guide_runs(capsys, store, tree, tmp_path, monkeypatch):
    under_way = run_of_one(capsys, tmp_path)
    set_alias(store, "ours@v1", find(store, under_way.prepared.specs["exam"].key))
    put_vla(tmp_path / "pi0", vla_document({"push": [vla_episode(0)]}))
    monkeypatch.chdir(tmp_path)
    # What follows asks for videos and for LBM Eval, which these evaluations have not.
    text = GUIDE.read_text().partition("## Looking at episodes")[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) > 8
    for line in lines:
        words = [under_way.run_id if w == "RUN" else w for w in shlex.split(line, comments=True)]
        words = [word.replace("=RUN", f"={under_way.run_id}") for word in words]
        assert words[0] == "foundry"
        assert main(words[1:]) == 0, capsys.readouterr().err
    (pipeline,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    document = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    document["stages"] |= yaml.safe_load(pipeline)["stages"]
    digest = f"sha256:{find(store, 'small@paper').content}"
    document["stages"]["small"]["import"]["digest"] = digest
    run(document, tmp_path)


@pytest.mark.slow("reads thousands of published episodes")
def test_the_published_tree(capsys, store, shared_data: Path):
    found = foundry(capsys, "import", shared_data / "lbm_eval_results" / "OSS", "--name", "oss")
    assert len(found["models"]) == 9 and not any(one["known"] for one in found["models"])
    assert sum(one["crashed"] for one in found["models"]) == 196
    (crashes,) = sql("select count(*) as n from episode where crash is not null")
    assert crashes["n"] == 196
    one = found["models"][0]
    published = foundry(capsys, "compare", one["key"], f"{found['models'][1]['name']}")
    assert published["labels"] == [one["model"], found["models"][1]["name"]]
    stored: Evaluation = read_evaluation(store.files_path(find(store, one["name"])))
    assert len(stored.outcomes) == 19 and stored.budget == 200
