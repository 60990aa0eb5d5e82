import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from foundry_core.models.noise import Key, normal, uniform

IDS = torch.arange(64)
SIGNED = st.integers(-(2**63), 2**63 - 1)
UNIFORM_7_11 = [[12830764, 6045701, 13143902], [10617991, 1955286, 2162704]]
NORMAL_7_11_5 = [-0.38325920701026917, 0.8763881325721741, 1.9974424839019775]


@settings(deadline=None)
@given(seed=SIGNED, step=SIGNED, cut=st.integers(1, 63))
def test_a_sample_s_numbers_do_not_depend_on_its_batch(seed, step, cut):
    whole = normal(Key(seed, step, IDS), (3, 2), stream=1)
    parts = [
        normal(Key(seed, step, ids), (3, 2), stream=1) for ids in (IDS[:cut], IDS[cut:].flip(0))
    ]
    assert torch.equal(whole, torch.cat((parts[0], parts[1].flip(0))))


def test_bits_are_stable():
    """Committed values: a change here changes every training run."""
    u = uniform(Key(7, 11, torch.tensor([0, 5])), (3,), stream=2)
    assert torch.equal((u * 2**24).long(), torch.tensor(UNIFORM_7_11))
    n = normal(Key(7, 11, torch.tensor([5])), (3,), stream=2)
    np.testing.assert_allclose(n.numpy()[0], NORMAL_7_11_5, rtol=1e-6)


def test_every_coordinate_matters():
    base = normal(Key(1, 2, IDS), (4,), stream=3)
    others = [
        normal(Key(2, 2, IDS), (4,), stream=3),
        normal(Key(1, 3, IDS), (4,), stream=3),
        normal(Key(2, 1, IDS), (4,), stream=3),
        normal(Key(1, 2, IDS + 1000), (4,), stream=3),
        normal(Key(1, 2, IDS), (4,), stream=4),
    ]
    for other in others:
        assert (base == other).sum() == 0
    assert len(base.flatten().unique()) == base.numel()


def test_coordinates_per_row():
    seeds, steps = torch.arange(64) % 3, torch.arange(64) % 5
    together = normal(Key(seeds, steps, IDS), (2,), stream=1)
    alone = normal(Key(int(seeds[17]), int(steps[17]), IDS[17:18]), (2,), stream=1)
    assert torch.equal(together[17:18], alone)


def test_distributions():
    ids = torch.arange(4000)
    n = normal(Key(0, 0, ids), (25,), stream=1).double().numpy()
    assert stats.kstest(n.ravel(), "norm").pvalue > 1e-3
    assert (
        stats.kstest(normal(Key(3, 9, ids[:1]), (50001,), stream=1)[0].numpy(), "norm").pvalue
        > 1e-3
    )
    u = uniform(Key(0, 0, ids), (25,), stream=1).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3


def test_no_correlation_between_neighbours():
    ids = torch.arange(20000)
    at = [normal(Key(0, step, ids), (2,), stream=1).double() for step in (0, 1)]
    pairs = {
        "samples": (at[0][:-1, 0], at[0][1:, 0]),
        "elements": (at[0][:, 0], at[0][:, 1]),
        "steps": (at[0][:, 0], at[1][:, 0]),
        "radius and angle": (at[0][:, 0].square(), at[0][:, 1].square()),
    }
    for name, (a, b) in pairs.items():
        r = np.corrcoef(a.numpy(), b.numpy())[0, 1]
        assert abs(r) < 4.5 / len(a) ** 0.5, name


def test_compiled_code_draws_the_same_numbers():
    """Traced alone: whoever compiles finds one operation there, of the same bits."""

    def draw(seeds, ids):
        return 2 * normal(Key(seeds, 7, ids), (3, 5), stream=2)

    graphs = []

    def collect(graph, inputs):
        graphs.append(graph)
        return graph.forward

    arguments = torch.tensor([3, 4]), torch.tensor([0, 1])
    compiled = torch.compile(draw, backend=collect, fullgraph=True)
    assert torch.equal(compiled(*arguments), draw(*arguments))
    (graph,) = graphs
    assert any("foundry.normal" in str(node.target) for node in graph.graph.nodes)
