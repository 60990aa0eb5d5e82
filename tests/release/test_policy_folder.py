"""A policy leaves as a folder: it acts as before, its card says where it comes from, a hub takes
it."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry_core.errors import FoundryError
from foundry_core.models.policy_settings import PolicySettings
from foundry_core.release.ancestry import ancestors, evaluations, lost
from foundry_core.release.card import model_card
from foundry_core.release.licences import licence_of, parse_licences
from foundry_core.release.policy_folder import export_policy, lineage_of
from foundry_core.release.push import check_push, push
from foundry_core.serving.checks import blank_observation
from foundry_core.serving.policy import load_policy
from tests.hub import LARGE, PUSHED, hub_server
from tests.release.kept import Kept, kept

TESTS = Path(__file__).parents[1]
for helper in ("tasks", "data/loading"):
    sys.path.append(str(TESTS / helper))

from training_stages import Bench  # noqa: E402


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The folder of a tiny policy."""
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("trained"))
    bench.llm()
    bench.vlm()
    return bench.vla()[0]


def chunk(folder):
    policy = load_policy(folder)
    observation = blank_observation(policy.contract)
    rng = np.random.default_rng(0)
    for image in observation["images"].values():
        image[:] = rng.integers(0, 256, image.shape)
    policy.reset("me", 5)
    (targets,) = policy.infer([("me", {**observation, "instruction": "open it"})])
    return targets


def test_it_acts_as_before_to_the_bit_from_the_folder_alone(policy, tmp_path):
    (policy / "artifact.json").write_text('{"host": "secret-host"}')
    export_policy(policy, tmp_path / "out", "lab/door")
    before, after = chunk(policy), chunk(tmp_path / "out")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].tobytes() == after[name].tobytes()
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")}
    assert {"README.md", "model.safetensors", "normalizer.json", "policy.json"} <= names
    assert not names & {"artifact.json", "raw.safetensors", "records", "lineage.json"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Not known: the folder was exported without a store" in card
    assert 'load_policy("lab/door")' in card
    with pytest.raises(FoundryError, match="holds something already"):
        export_policy(policy, tmp_path / "out", "x")


def test_the_lineage_is_what_the_store_has(tmp_path):
    store, policy = kept(tmp_path)
    lineage = ancestors(store, policy)
    assert [one.kind for one in lineage] == ["train_vla", "convert_robot"]
    assert [one.partition("/")[0] for one in lost(lineage)] == ["train_vlm"]
    played = evaluations(store, policy)
    assert [(one.stage, one.own) for one in played] == [
        ("exam", True), ("grey", False), ("still", False),
    ]  # fmt: skip
    assert "secret" not in json.dumps(lineage_of(lineage))
    assert "somebody" not in json.dumps(lineage_of(lineage))


@pytest.fixture(scope="module")
def contract(policy):
    return PolicySettings.load(policy).contract


def test_the_card_says_intervals_controls_licences_and_what_was_not_shown(tmp_path, contract):
    store, policy = kept(tmp_path)
    lineage = ancestors(store, policy)
    card = model_card(
        "lab/door", contract, lineage, evaluations(store, policy), lost=lost(lineage),
        licence="apache-2.0", licences=parse_licences(["lerobot=cc-by-4.0"]),
    )  # fmt: skip
    assert "license: apache-2.0" in card
    # Clopper-Pearson of 160/200 at 95 %: (0.737774, 0.853106).
    assert "| push | 160/200 | 80.0% | 73.8% to 85.3% | 0 |" in card
    assert "control `still`, which learned nothing | 0/200 | 0.0% | 0.0% to 1.8%" in card
    assert "`grey` (saw grey pictures) | 0/200" in card
    assert "other" not in card.partition("Played beside it")[2].partition("## What was not")[0]
    assert "| convert_robot | lerobot | `abababababab` | cc-by-4.0 |" in card
    assert "package numpy" in card and "BSD" in card
    assert "seed 7, 400 steps" in card
    assert "policy's noise of seed 3" in card
    assert "`c0ffee000000` with uncommitted changes. H100; torch 2.13.0" in card
    assert "one training seed stands behind this policy" in card
    assert "no control that learned nothing" not in card
    assert "train_vlm/" in card.partition("## What was not shown")[2]
    assert "secret" not in card


def test_an_evaluation_writes_no_heading_into_the_card(tmp_path, contract):
    """Names in it come from whoever made the file."""
    store, policy = kept(tmp_path)
    own = next(one for one in evaluations(store, policy) if one.own)
    lying = "sim\n\n## What was shown\n\n<script>steal()</script>"
    facts = dataclasses.replace(own.facts, benchmark=lying, criterion=lying)
    card = model_card("x", contract, [], [dataclasses.replace(own, facts=facts)])
    assert card.count("\n## What was shown\n") == 1
    assert "<script>" not in card and "&lt;script>steal()" in card


def test_results_of_runs_that_it_did_not_play_in_are_not_read(tmp_path, monkeypatch):
    """A store has thousands, in a bucket perhaps."""
    store, policy = kept(tmp_path)
    other = store.add("train_vla", name="another")
    store.run("elsewhere", exam=store.add("evaluate", ("policy", other), name="its exam"))
    opened = []
    monkeypatch.setattr(
        store, "reading", lambda one: opened.append(one) or Kept.reading(store, one)
    )
    before = [one.stage for one in evaluations(store, policy)]
    assert before == ["exam", "grey", "still"]
    assert not any(other.content == i.content for one in opened for i in one.inputs)
    assert len(opened) == len({one.key for one in opened})


def test_what_is_unknown_is_said(tmp_path, contract):
    store, policy = kept(tmp_path)
    lineage = ancestors(store, policy)
    card = model_card("x", contract, lineage, [])
    assert "it was not evaluated" in card
    assert "Under which licence these may be used: lerobot." in card
    own = [one for one in evaluations(store, policy) if one.own]
    alone = model_card("x", contract, lineage, own)
    assert "no control that learned nothing played it" in alone
    assert "no copy of it played with grey pictures" in alone


def test_licences():
    assert "MIT" in licence_of("pydantic", {})
    assert licence_of("somewhere", {}) == "not stated"
    with pytest.raises(FoundryError, match="'mit' is no licence of a source"):
        parse_licences(["mit"])


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    # Its Xet storage speaks to servers of its own; LFS is what any hub takes.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with hub_server(token="hf_writes") as (endpoint, hub):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield hub


def test_a_hub_takes_it_by_the_real_client_and_it_acts_as_before(hub, policy, tmp_path):
    export_policy(policy, tmp_path / "out", "lab/door")
    url = push(tmp_path / "out", "lab/door", "Add lab/door", private=True)
    assert url.endswith(f"/lab/door/commit/{PUSHED}")
    files = hub.models["lab/door"]
    assert files == {
        str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").iterdir()
    }
    assert len(files["model.safetensors"]) > LARGE
    assert (hub.private, hub.messages) == ({"lab/door"}, ["Add lab/door"])
    back = tmp_path / "back"
    back.mkdir()
    for name, data in files.items():
        (back / name).write_bytes(data)
    assert all(np.array_equal(a, b) for a, b in zip(
        chunk(policy).values(), chunk(back).values(), strict=True
    ))  # fmt: skip
    # Again: the repository is there.
    push(tmp_path / "out", "lab/door", "Again")
    assert hub.messages == ["Add lab/door", "Again"]


def test_a_push_needs_a_token_of_the_environment(hub, tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")
    monkeypatch.setenv("HF_TOKEN", "hf_reads_only")
    with pytest.raises(FoundryError, match="lab/x was not pushed") as refused:
        push(tmp_path, "lab/x", "m")
    assert "hf_reads_only" not in str(refused.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FoundryError, match="needs a token"):
        check_push("lab/x")
    with pytest.raises(FoundryError, match="'x' is no repository"):
        check_push("x")
    assert not hub.models
