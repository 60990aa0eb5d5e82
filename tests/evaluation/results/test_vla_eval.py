"""Result files of vla-eval: of its release, of the version it published, and what is refused."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.results.base import read_results
from foundry_core.evaluation.score import Score
from tests.evaluation.published import put_vla, vla_document, vla_episode


def test_a_file_of_its_release(tmp_path):
    crash = vla_episode(
        2, False, failure_reason="env_step", failure_detail="Traceback\n  x\nEnvStepError: boom"
    )
    killed = vla_episode(
        1, False, failure_reason="model_act", failure_detail="ModelActError: Killed"
    )
    episodes = [vla_episode(0), vla_episode(1, False), crash]
    document = vla_document({"put it there": episodes, "push": [vla_episode(0, 1), killed]})
    document["config"]["params"]["nested"] = {"deep": 1}
    put_vla(tmp_path / "pi0", document)
    results = read_results(tmp_path)
    assert (results.format, results.budget, results.models) == ("vla-eval", 4, ["pi0"])
    assert results.evaluations()["pi0"].scores == {
        "push": Score(n=1, successes=1, crashed=1, pending=2),
        "put it there": Score(n=2, successes=1, crashed=1, pending=1),
    }
    first = results.episodes["pi0", "put it there"][0]
    assert (first.scenario, first.steps, first.seconds) == (0, 70, 3.5)
    facts = results.facts["pi0"]
    assert results.evaluations()["pi0"].causes == {"env_step": 1, "process died": 1}
    assert facts.benchmark == "LIBEROBenchmark_libero_spatial"
    assert facts.packages == {"vla-eval": "0.8.0"}
    assert facts.options == {"suite": "libero_spatial", "seed": 7}
    assert (facts.first_scenario, facts.success, facts.imported.model) == (0, None, "pi0")


def test_a_file_of_the_version_that_was_published(tmp_path):
    """Episodes by name, success beside it, and shards in files of their own."""

    def old(number, success=True, **fields):
        return {"task": "push", "episode_id": f"push_ep{number}", "success": success, **fields}

    parts = [
        [old(0, steps=76), old(10)],
        [old(1, False), old(11, False, failure_reason="timeout")],
    ]
    for shard, episodes in enumerate(parts):
        document = vla_document({"push": episodes}, harness_version="0.0.4.dev8")
        put_vla(tmp_path / "xvla", document, f"LIBERO_shard{shard}of2.json")
    put_vla(tmp_path / "xvla", {"steps": 3}, "notes.json")
    put_vla(tmp_path / "xvla", "{", "draft.json")
    results = read_results(tmp_path / "xvla")
    assert results.models == ["xvla"]
    found = results.evaluations()["xvla"]
    assert found.causes == {"timeout": 1}
    assert found.outcomes == {"push": {0: True, 1: False, 10: True, 11: None}}


def test_suites_of_one_model_are_one_evaluation_and_say_so(tmp_path):
    for suite in ("goal", "spatial"):
        document = vla_document({f"{suite} task": [vla_episode(0)]}, benchmark=suite)
        document["config"]["params"]["suite"] = suite
        put_vla(tmp_path, document, f"{suite}_aggregate.json")
    results = read_results(tmp_path)
    facts = results.facts[tmp_path.name]
    assert facts.benchmark == "goal + spatial"
    assert facts.options == {"seed": 7}
    assert set(results.evaluations()[tmp_path.name].outcomes) == {"goal task", "spatial task"}


def test_one_file_is_enough(tmp_path):
    path = put_vla(tmp_path / "pi0", vla_document({"push": [vla_episode(3)]}))
    assert read_results(path).evaluations()["pi0"].outcomes == {"push": {3: True}}


def _with(**config):
    document = vla_document({"push": [vla_episode(0)]})
    document["config"] |= config
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "nested too deeply|is not JSON"),
        ({"benchmark": "x"}, "harness_version: Field required"),
        (vla_document({}), "has no episodes"),
        (vla_document({"push": [vla_episode(-1)]}), "episode_id: Input should be greater"),
        (vla_document({"push": [vla_episode("push")]}), "episode_id"),
        (vla_document({"push": [{"episode_id": 0}]}), "episode 0 has no success, true or false"),
        (vla_document({"push": [vla_episode(0, 0.4)]}), "metrics.success: Input should be a valid"),
        (vla_document({"push": [vla_episode(0, elapsed_sec=float("nan"))]}), "elapsed_sec"),
        (vla_document({"a\x1b[2J": [vla_episode(0)]}), "control characters"),
        (vla_document({"push": [vla_episode(0), vla_episode(0)]}), "push scenario 0 is in"),
        (_with(throughput_mode=True), "throughput mode"),
        (_with(episodes_per_task=10**9), "episodes_per_task: Input should be less"),
        (_with(episodes_per_task=True), "episodes_per_task"),
    ],
)
def test_refused_files(tmp_path, document, message):
    put_vla(tmp_path / "m", document)
    with pytest.raises(FoundryError, match=message) as refused:
        read_results(tmp_path)
    assert "\n" not in str(refused.value)
