"""Action heads as an open set: ours by file, anybody's by entry point."""

import pytest
import torch
from model_zoo import asked, build, robot_batch, seen, vla_config

from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.models.config import VLAConfig
from foundry_core.models.heads import HEADS
from foundry_core.models.heads.networks.base import ActionHead
from foundry_core.models.io import load_model, save_model
from foundry_core.models.noise import Key

SIZES = {"condition_dim": 8, "proprio_dim": 0, "proprio_steps": 0, "horizon": 3, "action_dim": 5}
# Config and module in one file; torch is imported by build alone.
CONSTANT = """
from typing import Literal

from foundry_core.models.heads.base import HeadConfig


class ConstantHeadConfig(HeadConfig):
    kind: Literal["constant"] = "constant"
    start: float = 0.0

    def build(self, *, condition_dim, proprio_dim, proprio_steps, horizon, action_dim):
        import torch

        from foundry_core.models.heads.networks.base import ActionHead

        class ConstantHead(ActionHead):
            def __init__(self, start):
                super().__init__()
                self.values = torch.nn.Parameter(torch.full((horizon, action_dim), start))

            def training_loss_terms(self, seen, targets, key):
                return targets.total((self.values - targets.actions) ** 2), targets.count

            def chunk(self, seen, request):
                return self.values.expand(seen.rows, -1, -1)

        return ConstantHead(self.start)


HEAD = ConstantHeadConfig
"""


def act(model, batch):
    inputs = (batch[name] for name in ("images", "tokens", "token_mask", "proprio"))
    return model.act(*inputs, seeds=1, steps=0)


def test_ours_are_found_by_their_files():
    assert {"flow", "diffusion", "regression"} <= set(HEADS.names())


@pytest.mark.parametrize("kind", ["flow", "diffusion", "regression"])
def test_every_head_is_built_from_its_config_and_the_sizes(kind):
    config = HEADS.get(kind)(dim=16, n_layers=1, n_heads=2)
    head = config.build(**SIZES)
    assert isinstance(head, ActionHead)
    chunk = head.sample(seen(torch.zeros(2, 1, 8), None), asked(1, 0, 2))
    assert chunk.shape == (2, 3, 5)


def test_an_unknown_head_is_named_with_its_nearest():
    with pytest.raises(FoundryError) as error:
        validate(VLAConfig, {"head": {"kind": "flov", "dim": 8}}, "model")
    assert "unknown action head 'flov'" in str(error.value)
    assert "'flow'" in str(error.value)


def test_a_head_without_kind_is_refused():
    with pytest.raises(FoundryError, match="kind"):
        validate(VLAConfig, {"head": {"dim": 8}}, "model")


def test_a_head_of_another_distribution_trains_acts_and_is_read_back(install_member, tmp_path):
    install_member("foundry.heads", "constant", CONSTANT)
    head = {"kind": "constant", "start": 0.5}
    model = build(vla_config(head=head))
    batch = robot_batch([3, 4])
    names = ("images", "tokens", "token_mask", "proprio", "actions", "action_mask")
    total, count = model.training_loss_terms(
        *(batch[n] for n in names), Key(0, 0, batch["draw_ids"])
    )
    (total.sum() / count).backward()
    assert model.head.values.grad is not None
    save_model(tmp_path / "saved", model)
    loaded, config = load_model(tmp_path / "saved")
    assert config == model.config
    assert config.head.start == 0.5
    torch.testing.assert_close(act(loaded, batch), act(model, batch))


def test_a_saved_policy_whose_head_is_gone_names_the_nearest(tmp_path):
    save_model(tmp_path, build(vla_config()))
    document = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(document.replace('"kind": "flow"', '"kind": "flow2"'))
    with pytest.raises(FoundryError, match="unknown action head 'flow2'"):
        load_model(tmp_path)


def test_a_head_that_lacks_a_method_is_not_built():
    class Half(ActionHead):
        def chunk(self, *args, **kwargs):
            return None

    with pytest.raises(TypeError, match="training_loss_terms"):
        Half()
