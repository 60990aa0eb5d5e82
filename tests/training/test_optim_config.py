import pytest
import torch
from pydantic import ValidationError
from torch import nn

from foundry_core.errors import FoundryError
from foundry_core.training.config import OptimizerConfig, TrainingConfig, TrainResources
from foundry_core.training.optim import (
    build_optimizer,
    decays,
    freeze,
    gradient_norm,
    set_lr,
    update,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.positions = nn.Parameter(torch.zeros(1, 5, 3))
        self.cls = nn.Parameter(torch.zeros(1, 1, 3))
        self.conv = nn.Conv2d(3, 3, 2)
        self.norm = nn.LayerNorm(3)
        self.gate = nn.Parameter(torch.zeros(3))


def test_decay_on_matrices_only():
    decayed = {n for n, p in Net().named_parameters() if decays(n, p)}
    assert decayed == {"embedding.weight", "conv.weight"}


def test_the_longest_pattern_counts_in_any_order():
    """A recipe's mappings have no order: two orders have one key."""
    scales = {"norm*": 0.5, "norm.bias": 0.1}
    for given in (scales, dict(reversed(scales.items()))):
        net = Net()
        optimizer = build_optimizer(net, OptimizerConfig(lr=1.0), given)
        names = {id(p): n for n, p in net.named_parameters()}
        rates = {names[id(p)]: g["peak_lr"] for g in optimizer.param_groups for p in g["params"]}
        assert (rates["norm.weight"], rates["norm.bias"]) == (0.5, 0.1)


def test_groups_cover_every_trainable_parameter_once_with_its_rate():
    net = Net()
    freeze(net, ("conv",))
    optimizer = build_optimizer(net, OptimizerConfig(lr=0.1), {"norm": 0.5, "emb*": 0.2})
    set_lr(optimizer, 0.5)
    names = {id(p): n for n, p in net.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert rates == pytest.approx(
        {
            "embedding.weight": 0.01,
            "norm.weight": 0.025,
            "norm.bias": 0.025,
            "positions": 0.05,
            "cls": 0.05,
            "gate": 0.05,
        }
    )


@pytest.mark.parametrize(
    "use",
    [lambda n: freeze(n, ("nrm",)), lambda n: build_optimizer(n, OptimizerConfig(), {"nrm": 1.0})],
)
def test_pattern_without_a_parameter_is_named(use):
    with pytest.raises(FoundryError, match=r"'nrm'.*norm"):
        use(Net())


@pytest.mark.parametrize("bound", [1.0, 10.0, None])
def test_an_update_takes_gradients_scaled_to_the_bound(bound):
    """The first moment after one step is 0.1 of what the step took for the gradient."""
    net = nn.Linear(2, 1, bias=False)
    optimizer = build_optimizer(net, OptimizerConfig(betas=(0.9, 0.99)))
    net.weight.grad = torch.tensor([[3.0, 4.0]])
    norm = gradient_norm(optimizer)
    assert float(norm) == pytest.approx(5.0)
    update(optimizer, torch.tensor(1.0), norm, bound)
    taken = torch.tensor([[3.0, 4.0]]) / (5.0 if bound == 1.0 else 1.0)
    torch.testing.assert_close(optimizer.state[net.weight]["exp_avg"], 0.1 * taken)


def test_exactly_one_budget():
    with pytest.raises(ValidationError, match="exactly one budget"):
        TrainingConfig()
    with pytest.raises(ValidationError, match="exactly one budget"):
        TrainingConfig(steps=1, tokens=3)


def test_budgets_become_steps_of_the_global_batch():
    tokens = TrainingConfig(tokens="2e6")
    assert tokens.total_steps(samples_per_step=8, tokens_per_step=1000) == 2000
    assert TrainingConfig(samples=33).total_steps(samples_per_step=8) == 4
    assert TrainingConfig(steps=0).total_steps(samples_per_step=8) == 0
    with pytest.raises(FoundryError, match="less than one step"):
        TrainingConfig(samples=7).total_steps(samples_per_step=8)
    with pytest.raises(FoundryError, match="tokens=5"):
        TrainingConfig(tokens=5).total_steps(samples_per_step=8)


def test_workers_default_to_whole_gpus():
    assert [TrainResources(gpus=g).workers for g in (0, 0.5, 1, 4)] == [1, 1, 1, 4]
    assert TrainResources(gpus=4, num_workers=2).workers == 2
