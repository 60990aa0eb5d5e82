"""What the pages of runs are told: stages and their states, progress, curves, episodes, lineage."""

import base64
import json
import math
import os
import time
from types import SimpleNamespace

import pytest
from live_home import RUN, toy

from flows import processes
from flows.live import stages
from flows.live.curves import Tails
from flows.runs.events import StageFailedEvent, StageFinished, StageProgress, StageStarted
from flows.runs.progress import ProgressFiles
from foundry_core.home import home_dir
from foundry_core.lineage.event_types import AttemptFinished
from tests.lineage.history import digest, stage

EXAM_ROWS = [
    {
        "task": "",
        "n": 2,
        "successes": 1,
        "crashed": 0,
        "pending": 0,
        "rate": 0.5,
        "low": 0.1,
        "high": 0.9,
    }
]


def rows(*values):
    return "".join(json.dumps(one) + "\n" for one in values)


def observer(run=RUN):
    return ProgressFiles(home_dir() / "runs" / run, lambda event: None)


def states(home, run=RUN):
    return {one["name"]: one["state"] for one in home.fresh().told_of(f"run/{run}")["stages"]}


def test_a_run_from_its_plan_to_its_end(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    watch = observer()
    assert states(home) == {"data": "waits", "model": "waits", "exam": "waits"}
    home.built(data, {"a.txt": "a"})
    watch(StageStarted("model"))
    watch(StageProgress("model", {"message": "waits for box:7"}))
    assert states(home) == {"data": "done", "model": "waits", "exam": "waits"}
    home.told.attempt(RUN, model)
    watch(StageProgress("model", {"done": 10, "total": 40, "values": {"loss": 0.5}}))
    assert states(home)["model"] == "runs"
    watch(StageFinished("model", SimpleNamespace(action="run", seconds=7.5)))
    found = home.told_of(f"run/{RUN}")["stages"][1]
    assert (found["state"], found["seconds"]) == ("done", 7.5)  # before the lineage knows
    home.built(model, {"weight.txt": "1"})
    home.told.resolve(RUN, exam, "reuse", exam["key"], "content")
    home.told.finish(RUN, seconds=3.0)
    assert states(home) == {"data": "done", "model": "done", "exam": "reused"}
    found = home.told_of(f"run/{RUN}")
    assert found["run"]["status"] == "succeeded"
    assert found["stages"][2]["why"] == ["never built", "same recipe, same input bytes"]
    assert found["stages"][0]["plan"] == ["never built"]


def test_progress_has_the_newest_numbers_and_the_time_left(home, monkeypatch):
    """Ten steps in five seconds from the first that was seen: 20 more take ten."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("flows.runs.progress.time", SimpleNamespace(time=lambda: clock.now))
    data, model, _ = toy()
    home.begin(data, model)
    watch = observer()
    watch(StageStarted("model"))
    watch(StageProgress("model", {"done": 10, "total": 40, "values": {"loss": 2.0}}))
    clock.now += 0.4  # too soon
    watch(StageProgress("model", {"done": 11, "total": 40, "values": {"loss": 1.9}}))
    clock.now += 4.6
    watch(StageProgress("model", {"done": 20, "total": 40, "values": {"loss": 1.5}}))
    shown = home.told_of(f"run/{RUN}")["stages"][1]["progress"]
    assert (shown["done"], shown["total"], shown["left"]) == (20, 40, 10.0)
    assert shown["values"] == {"loss": 1.5}


def test_a_failed_stage_says_why_in_its_own_words(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    home.built(data, {"a.txt": "a"})
    home.told.attempt(RUN, model)
    observer()(StageFailedEvent("model", "out of memory at https://me:hunter22@box"))
    assert states(home) == {"data": "done", "model": "failed", "exam": "waits"}
    error = home.told_of(f"run/{RUN}")["stages"][1]["error"]
    assert "out of memory" in error and "hunter22" not in error
    home.told.finish(RUN, "failed", error="stages not completed: model, exam")
    assert states(home) == {"data": "done", "model": "failed", "exam": "blocked"}


def test_a_stage_that_was_cancelled_did_not_fail(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    home.built(data, {"a.txt": "a"})
    home.told.attempt(RUN, model)
    observer()(StageFailedEvent("model", "stage 'model' was cancelled", cancelled=True))
    assert states(home) == {"data": "done", "model": "cancelled", "exam": "waits"}
    who = {"run_id": RUN, "key": model["key"], "attempt": "a1"}
    home.told.add(AttemptFinished(state="interrupted", **who))
    home.told.finish(RUN, "cancelled", error="Ctrl-C")
    assert states(home) == {"data": "done", "model": "cancelled", "exam": "blocked"}
    assert home.told_of(f"run/{RUN}")["stages"][1]["error"] is None


def test_a_run_whose_process_is_gone_says_so(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    home.told.attempt(RUN, model)
    observer()(StageProgress("model", {"done": 1, "total": 40}))
    entry = processes.record("run", RUN)
    assert not home.told_of(f"run/{RUN}")["run"]["gone"]
    dead = json.loads(entry.path.read_text())
    dead["process"] |= {"pid": 2**22 - 3, "started": 1}
    entry.path.write_text(json.dumps(dead))
    found = home.told_of(f"run/{RUN}")
    assert found["run"]["gone"] and found["run"]["status"] == "running"
    assert [one["state"] for one in found["stages"]] == ["blocked", "gone", "blocked"]
    assert found["stages"][1]["progress"] is None
    assert home.told_of("runs")["runs"][0]["gone"]


def test_a_run_that_nobody_knows_and_a_home_without_runs(home):
    assert home.told_of("runs") == {"runs": [], "more": False}
    home.begin(*toy())
    home.fresh()
    for part in ("", "/curves", "/rollouts", "/verdict", "/graph"):
        status, _, body = home.ask(f"/foundry-live/run/absent{part}")
        assert status == 404 and "'absent'" in json.loads(body)["error"], part


def test_an_idle_page_is_told_that_nothing_moved_without_a_query(home, monkeypatch):
    home.begin(*toy())
    path = f"/foundry-live/run/{RUN}"
    status, headers, _ = home.ask(path)
    assert status == 200
    tag = [(b"if-none-match", headers[b"etag"])]
    asked = []
    monkeypatch.setattr("flows.live.questions.run_answer", lambda *given: asked.append(given))
    for _ in range(3):
        status, again, body = home.fresh().ask(path, headers=tag)
        assert (status, body, again[b"etag"]) == (304, b"", headers[b"etag"])
    assert not asked
    monkeypatch.undo()
    observer()(StageStarted("data"))
    status, again, _ = home.ask(path, headers=tag)
    assert status == 200 and again[b"etag"] != headers[b"etag"]


def test_curves_of_a_training_under_way_and_of_one_that_is_done(home):
    data, model, _ = toy()
    home.begin(data, model)
    scratch = home.store.scratch(model["key"])
    scratch.mkdir(parents=True)
    log = scratch / "metrics.jsonl"
    log.write_text(rows({"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}) + '{"step": 3, "lo')
    (curve,) = home.told_of(f"run/{RUN}/curves")["curves"]
    assert (curve["stage"], curve["live"]) == ("model", True)
    assert curve["series"] == [{"name": "loss", "points": [[1, 3.0], [2, 2.0]]}]
    log.write_text(log.read_text() + 'ss": 1.0}\nno row\n[1]\n{"step": "4", "loss": 1}\n')
    (curve,) = home.told_of(f"run/{RUN}/curves")["curves"]
    assert curve["series"][0]["points"] == [[1, 3.0], [2, 2.0], [3, 1.0]]
    home.built(model, {"w": "1", "records/metrics.jsonl": rows({"step": 9, "loss": 0.25})})
    (curve,) = home.fresh().told_of(f"run/{RUN}/curves")["curves"]
    assert curve["series"] == [{"name": "loss", "points": [[9, 0.25]]}] and not curve["live"]


def test_a_log_that_is_cut_back_to_a_checkpoint_is_read_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "flows.live.curves.opened", lambda: SimpleNamespace(scratch=lambda _: tmp_path)
    )
    tails, log = Tails(), tmp_path / "metrics.jsonl"
    log.write_text(rows(*({"step": n, "loss": n / 2} for n in range(1, 6))))
    key = digest("model")
    assert [p[0] for p in tails.curves("m", key)["m"]["loss"]] == [1, 2, 3, 4, 5]
    before = tails.stamp()
    with log.open("r+") as stream:
        stream.truncate(len(rows({"step": 1, "loss": 0.5})))
    assert tails.stamp() != before
    assert [p[0] for p in tails.curves("m", key)["m"]["loss"]] == [1]


def test_a_long_log_is_thinned_and_keeps_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "flows.live.curves.opened", lambda: SimpleNamespace(scratch=lambda _: tmp_path)
    )
    (tmp_path / "metrics.jsonl").write_text(
        rows(*({"step": n, "loss": 1.0} for n in range(50_000)))
    )
    points = Tails().curves("m", digest("model"))["m"]["loss"]
    assert 250 < len(points) < 700
    assert points[0][0] == 0 and points[-1][0] == 49_999


def test_what_lies_in_place_of_a_log_is_not_waited_for(home, tmp_path):
    data, model, _ = toy()
    home.begin(data, model)
    scratch = home.store.scratch(model["key"])
    scratch.mkdir(parents=True)
    os.mkfifo(scratch / "metrics.jsonl")
    (scratch / "validation.jsonl").symlink_to("/etc/passwd")
    assert home.told_of(f"run/{RUN}/curves")["curves"] == []


def test_progress_files_that_are_torn_or_lie_are_left_out(home):
    home.begin(*toy())
    folder = home_dir() / "runs" / RUN / "progress"
    folder.mkdir()
    (folder / "a.json").write_text('{"stage": "data", "do')
    (folder / "b.json").write_text('["data"]')
    (folder / "c.json").write_text(json.dumps({"stage": "model", "done": 1}) + " " * 70_000)
    (folder / "d.json").write_text("[" * 30_000)
    text = {
        "stage": "exam",
        "done": "x",
        "total": math.nan,
        "values": {"a": "b", "c": 1},
        "first": 3,
    }
    (folder / "e.json").write_text(json.dumps(text))
    found = {one["name"]: one for one in home.told_of(f"run/{RUN}")["stages"]}
    assert found["data"]["progress"] is None and found["model"]["progress"] is None
    shown = found["exam"]["progress"]
    assert (shown["done"], shown["total"], shown["left"]) == (None, None, None)
    assert shown["values"] == {"c": 1}


def test_a_disk_that_takes_no_progress_fails_no_run(home):
    home.begin(*toy())
    (home_dir() / "runs" / RUN / "progress").write_text("no folder")
    heard = []
    watch = ProgressFiles(home_dir() / "runs" / RUN, heard.append)
    events = [StageStarted("data"), StageProgress("data", {"done": 1, "total": 2})]
    for event in events:
        watch(event)
    assert heard == events


def test_the_verdict_and_the_rates_of_a_run(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    home.built(data, {"a": "a"})
    home.built(model, {"w": "1"})
    assert home.fresh().told_of(f"run/{RUN}/verdict")["tables"] == []
    home.built(exam, {"e": "1", "records/scores.jsonl": rows(*EXAM_ROWS)})
    (table,) = home.fresh().told_of(f"run/{RUN}/verdict")["tables"]
    assert table["rows"] == [["exam", "all tasks", "1 of 2", "50.0 %", "10.0 % to 90.0 %"]]


def test_a_comparison_that_cannot_be_read_is_named(home):
    data, model, exam = toy()
    judged = stage("verdict", "compare", {}, {"evaluations": exam})
    home.begin(data, model, exam, judged)
    home.built(judged, {"comparison.json": '{"labels": 3}'})
    (said,) = home.told_of(f"run/{RUN}/verdict")["sentences"]
    assert said.startswith("The comparison cannot be shown: ")


def test_episodes_failures_first_also_while_they_are_played(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    kept = home.store.scratch(exam["key"]) / "pictures" / "records" / "videos" / "push"
    kept.mkdir(parents=True)
    (kept / "000000_success.mp4").write_bytes(b"one")
    (kept / "000001_failure.mp4").write_bytes(b"two")
    (kept / "notes.txt").write_text("no video")
    found = home.told_of(f"run/{RUN}/rollouts")
    assert [(r["outcome"], r["live"]) for r in found["rollouts"]] == [
        ("failure", True),
        ("success", True),
    ]
    assert (found["count"], found["failures"]) == (2, 1)
    path = found["rollouts"][0]["path"]
    status, headers, body = home.ask(f"/foundry-live/made/{exam['key']}/{path}")
    assert (status, headers[b"content-type"], body) == (200, b"video/mp4", b"two")
    home.built(
        exam,
        {
            "records/videos/push/000000_failure.mp4": b"three",
            "frames/push/000000_failure.png": b"p",
        },
    )
    (one,) = home.fresh().told_of(f"run/{RUN}/rollouts")["rollouts"]
    assert not one["live"]
    assert home.ask(f"/foundry-live/file/play/{exam['key']}/{one['path']}")[2] == b"three"


def test_the_graph_is_laid_out_and_an_artifact_tells_its_story(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    home.built(data, {"a": "a"})
    home.built(model, {"w": "1"}, metrics={"loss": 0.5})
    graph = home.fresh().told_of(f"run/{RUN}/graph")
    assert [(n["name"], n["key"]) for n in graph["nodes"]] == [
        ("data", data["key"]),
        ("model", model["key"]),
        ("exam", exam["key"]),
    ]
    assert [(e["source"], e["target"]) for e in graph["edges"]] == [
        ("data", "model"),
        ("model", "exam"),
    ]
    assert all(e["path"].startswith("M") for e in graph["edges"])
    found = home.told_of(f"artifact/{model['key']}")
    assert found["recipe"] == [["steps", "40"]] and found["metrics"] == [["loss", "0.5"]]
    assert found["lists"]["inputs"][0]["upstream_key"] == data["key"]
    assert found["why"] == [
        {"run_id": RUN, "stage": "model", "action": "run", "why": ["never built"]}
    ]
    assert home.told_of(f"artifact/{data['key']}")["lists"]["used_by"] == [
        {"key": model["key"], "kind": "rehearse", "present": True}
    ]
    planned = home.told_of(f"artifact/{exam['key']}")
    assert planned["kind"] == "play" and not planned["facts"]["present"]
    assert len(home.told_of(f"ancestry/{model['key']}")["nodes"]) == 2
    assert home.ask(f"/foundry-live/artifact/{digest('absent')}")[0] == 404


def test_what_differs_from_the_artifact_before(home):
    data, model, _ = toy()
    home.begin(data, model)
    home.built(data, {"a": "a"})
    home.built(model, {"w": "1"})
    longer = stage("model", "rehearse", {"steps": 80}, {"pictures": data})
    second = RUN.replace("08", "09")
    home.begin(data, longer, run=second)
    home.built(longer, {"w": "2"}, run=second)
    found = home.told_of(f"artifact/{longer['key']}")
    assert found["previous"] == model["key"]
    assert found["changes"] == [{"place": "", "path": "recipe.steps", "old": "40", "new": "80"}]


def test_runs_are_found_by_name_pipeline_stage_and_key(home):
    data, model, exam = toy()
    home.begin(data, model, exam, pipeline="alpha")
    other = "20261127T101010-beta-000000"
    home.begin(stage("text", "emit", {}, {}), run=other, pipeline="beta")
    found = lambda words: [r["run_id"] for r in home.told_of(f"runs?words={words}")["runs"]]  # noqa: E731
    assert found("") == [other, RUN]
    for words in ("alpha", "df6a7d", "EXAM", model["key"][:8], "alpha+model", "toy"):
        assert found(words) == [RUN], words
    assert found("alpha+text") == [] and found("%25") == [] and found("'") == []


def test_artifacts_are_found_by_key_kind_stage_and_file(home):
    data, model, exam = toy()
    home.begin(data, model, exam)
    artifact = home.built(data, {"a": "a"})
    home.built(model, {"w": "1"})
    found = lambda words: [r["key"] for r in home.told_of(f"search?words={words}")["artifacts"]]  # noqa: E731
    for words in (data["key"][:7], "draw", "data", artifact.files[0].sha256):
        assert found(words) == [data["key"]], words
    assert found("") == [] and found("zzz") == []


@pytest.mark.slow("reads a preview in a process of its own")  # the data tools are imported twice
def test_a_sample_of_a_dataset_is_read_by_a_process_of_its_own(home, tmp_path):
    from tests.synthetic import make_captions

    shards = make_captions(tmp_path / "shards", samples=4, size=32)
    data, *_ = toy()
    home.begin(data)
    home.built(data, {path.name: path.read_bytes() for path in shards.iterdir()})
    assert home.fresh().told_of(f"artifact/{data['key']}")["previews"]
    found = home.told_of(f"preview/draw/{data['key']}/2")
    assert (found["modality"], found["samples"]) == ("captions", 4)
    assert [one["name"] for one in found["pictures"]] == ["front.jpg", "wrist.jpg"]
    png = base64.b64decode(found["pictures"][0]["png"])
    assert png.startswith(b"\x89PNG") and found["sample"]["key"] == "c0-2"
    status, _, body = home.ask(f"/foundry-live/preview/draw/{data['key']}/4")
    assert status == 404 and "has no sample 4" in json.loads(body)["error"]


def test_a_store_that_is_being_written_is_asked_again(home, monkeypatch):
    home.begin(*toy())
    home.told_of(f"run/{RUN}")

    def away(*_):
        raise OSError("moved meanwhile")

    monkeypatch.setattr("flows.live.questions.run_answer", away)
    observer()(StageStarted("data"))
    status, _, body = home.ask(f"/foundry-live/run/{RUN}")
    assert status == 503 and json.loads(body)["error"] == "not to be told now: OSError"
    monkeypatch.undo()
    assert home.told_of(f"run/{RUN}")["stages"][0]["state"] == "runs"


def test_the_index_is_advanced_for_a_fourth_of_the_time_at_most(home, monkeypatch):
    home.begin(*toy())
    home.told_of(f"run/{RUN}")
    lineage = home.live._made._lineage
    clock = SimpleNamespace(now=time.monotonic() + 1000)
    spent = []

    def slow(log):
        spent.append(clock.now)
        clock.now += 3.0

    monkeypatch.setattr(lineage, "_advance", slow)
    monkeypatch.setattr("flows.live.lineage.time", SimpleNamespace(monotonic=lambda: clock.now))
    for second in range(60):
        home.told.attempt(RUN, toy()[0], f"a{second}")
        lineage.version()
        clock.now += 1.0
    assert len(spent) == 5  # 3 s, and a fourth of the time: every 12 s beyond the first


@pytest.mark.parametrize("reasons", [[{}], [{"category": 3, "path": ["x"], "more": 1}], None])
def test_reasons_of_anybody_are_words(reasons):
    assert all(isinstance(one, str) for one in stages.why(reasons))
