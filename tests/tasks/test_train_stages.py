"""LLM → VLM → VLA through the stages' own run(), on tiny data: what each leaves behind."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_stages import TRAINING, Bench, curve

from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.models.io import load_model


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("stages"))
    bench.metrics = {name: getattr(bench, name)()[1] for name in ("llm", "vlm", "vla")}
    return bench


def test_vocabulary_grows_by_one_row_per_stage_and_keeps_the_old_ids(bench):
    found = {}
    for name in ("llm", "vlm", "vla"):
        module, config = load_model(bench.root / name)
        language = {"llm": config, "vlm": getattr(config, "language", None)}.get(name)
        language = language or config.backbone.language
        tokenizer = Tokenizer.load(bench.root / name)
        assert tokenizer.vocab_size == language.vocab_size
        found[name] = (tokenizer, module)
    tokenizer = found["vla"][0]
    assert [found[n][0].vocab_size for n in found] == [258, 259, 260]
    assert tokenizer.token_id("<|image|>") == found["vlm"][1].image_token_id == 258
    assert tokenizer.token_id("<|obs|>") == found["vla"][1].obs_token_id == 259
    assert tokenizer.encode("some text") == found["llm"][0].encode("some text")


def test_metrics_name_what_was_trained(bench):
    assert bench.metrics["llm"]["tokens"] == 6 * 8 * 15
    assert bench.metrics["vla"]["steps"] == 6
    (row,) = curve(bench.root / "vla")
    assert {"loss", "robot_loss", "captions_loss", "grad_norm", "lr", "step"} == set(row)
    assert row["loss"] == pytest.approx(row["robot_loss"] + 0.1 * row["captions_loss"])


def test_a_policy_carries_all_that_serving_needs(bench):
    folder = bench.root / "vla"
    policy = json.loads((folder / "policy.json").read_text())
    contract = policy["contract"]
    assert (contract["hz"], contract["execute_steps"], contract["ahead"]) == (16.0, 3, 8)
    assert list(contract["cameras"]) == ["front", "wrist"]
    assert (
        contract["commands"]["robot__action__poses__right::panda__rot_6d"]["form"] == "rot6d_rows"
    )
    assert policy["inputs"]["cameras"] == ["front", "wrist"]
    fields = {*policy["inputs"]["action_fields"], *policy["inputs"]["proprio_fields"]}
    assert set(Normalizer.load(folder).fields) == fields


def test_untrained_control_is_the_upstream_vlm_and_a_new_head(bench):
    folder, metrics = bench.vla("vla0", changes={"training": {"steps": 0}})
    vlm, vla = (load_file(f / "model.safetensors") for f in (bench.root / "vlm", folder))
    assert metrics["steps"] == 0
    for name, weight in vlm.items():
        grown = vla[f"backbone.{name}"]
        assert torch.equal(grown[: len(weight)], weight), name
    row = vla["backbone.language.embedding.weight"][-1]
    torch.testing.assert_close(row, vlm["language.embedding.weight"].mean(dim=0))


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(bench):
    again, _ = bench.vla("vla_again")
    other, _ = bench.vla("vla_other", seed=1)
    first = (bench.root / "vla" / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == first
    assert (other / "model.safetensors").read_bytes() != first


def test_resuming_a_stage_is_bit_exact(bench):
    """The first start ends early: its loader is cut off after four steps."""
    from foundry_core.data.loading.loader import Loader

    original = Loader.batches

    def short(self, first_step=0, rank=0, world=1):
        for step, batch in enumerate(original(self, first_step, rank, world), start=first_step):
            if step == 4:
                raise KeyboardInterrupt
            yield batch

    every = {"checkpoint_every_steps": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "batches", short)
        with pytest.raises(KeyboardInterrupt):
            bench.vla("vla_cut", resources=every)
    folder, metrics = bench.vla("vla_cut", resources=every)
    assert metrics["resumed_from_step"] == 4
    for name in ("model.safetensors", "records/metrics.jsonl"):
        assert (folder / name).read_bytes() == (bench.root / "vla" / name).read_bytes()


def test_blind_control_does_not_depend_on_what_the_cameras_see(bench):
    from foundry_core.serving.policy import load_policy

    changes = {"images": False, "training": TRAINING}
    folder, _ = bench.vla("vla_blind", changes=changes)
    bench.vla("vla_seeing")
    answers = {}
    for name in ("vla_blind", "vla_seeing"):
        for shade in (0, 255):
            policy = load_policy(bench.root / name)
            policy.reset("a", 3)
            (answers[name, shade],) = policy.infer([("a", observation(policy, shade))])
    field = "robot__action__poses__right::panda__xyz"
    blind, seeing = ([answers[n, s][field] for s in (0, 255)] for n in ("vla_blind", "vla_seeing"))
    np.testing.assert_array_equal(*blind)
    assert np.abs(seeing[0] - seeing[1]).max() > 1e-4
    policy = load_policy(folder)
    policy.reset("a", 3)
    (unseen,) = policy.infer([("a", {**observation(policy, 0), "images": {}})])
    np.testing.assert_array_equal(unseen[field], blind[0])
    assert not policy.cameras, "nothing is drawn for it"
    assert folder.is_dir()


def observation(policy, shade: int) -> dict:
    fields = {name: np.zeros(3) for name in policy.transform.measured_fields}
    for name in fields:
        if name.endswith("rot_6d"):
            fields[name] = np.array([1.0, 0, 0, 0, 1, 0])
        elif "grippers" in name:
            fields[name] = np.zeros(1)
    images = {c: np.full((16, 16, 3), shade, np.uint8) for c in policy.cameras}
    return {"images": images, "lowdim": fields, "instruction": "do 1"}


def test_without_pretraining_the_language_model_starts_from_scratch(bench):
    folder, _ = bench.vlm("vlm_scratch", llm=None)
    assert Tokenizer.load(folder).vocab_size == 259
    _, config = load_model(folder)
    assert config.language.vocab_size == 259
    assert config.language.dim == 16
