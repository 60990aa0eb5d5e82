"""Weights of single samples: exact counts, from anywhere, on any ranks; and through the loader."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import DataConfig, LoaderResources, RobotData
from foundry_core.data.loading.order import Order, rank_slice
from foundry_core.data.loading.sample_weights import SampleWeights
from foundry_core.errors import FoundryError
from tests.synthetic import INPUTS

# Windows of two datasets and how often each is drawn beside others.
SIZES = {"a": 90, "b": 30}
RUNS = {"a": [(40, 1.0), (20, 0.0), (25, 0.5), (5, 4.0)], "b": [(10, 0.0), (20, 2.0)]}
BY_HAND = {
    "a": np.repeat([1.0, 0.0, 0.5, 4.0], [40, 20, 25, 5]),
    "b": np.repeat([0.0, 2.0], [10, 20]),
}


def order(weights=None, sizes=SIZES, runs=RUNS, **more):
    held = {label: SampleWeights(some) for label, some in runs.items()}
    return Order(sizes, weights, 3, sample_weights=held, **more)


def counts_of(draws, dataset, size):
    """[draws + 1, size]: how often each sample came before each draw."""
    one = np.zeros((len(draws), size), np.int64)
    mine = np.flatnonzero(draws.dataset == dataset)
    one[mine, draws.sample[mine]] = 1
    return np.concatenate([np.zeros((1, size), np.int64), one.cumsum(axis=0)])


def test_counts_of_a_dataset_are_exact_at_every_prefix():
    draws = order({"a": 1.0, "b": 0.0}).draws(0, 1200)
    counts = counts_of(draws, 0, 90)
    weight = BY_HAND["a"]
    assert (counts[-1][weight == 0] == 0).all()
    n = np.arange(1201)[:, None]
    for value in (0.5, 1.0, 4.0):
        members = weight == value
        of_class = counts[:, members].sum(axis=1)
        share = (weight * members).sum() / weight.sum()
        assert np.abs(of_class - n[:, 0] * share).max() < 2
        # Its samples: each once before any comes again.
        assert (counts[:, members].max(axis=1) - counts[:, members].min(axis=1)).max() <= 1
    assert np.abs(counts - n * weight / weight.sum()).max() < 1.5


def test_a_whole_number_of_rounds_is_the_weights_themselves():
    """Of a, 72.5 in weights: 145 draws are each sample's weight twice over, as are the next 145."""
    found = order({"a": 1.0, "b": 0.0})
    for first in (0, 145, 145 * 9):
        counts = counts_of(found.draws(first, 145), 0, 90)[-1]
        assert np.array_equal(counts, 2 * BY_HAND["a"])


def test_two_weights_are_within_half_a_draw():
    runs = {"a": [(64, 1.0), (26, 0.1)]}
    draws = order({"a": 1.0}, {"a": 90}, runs).draws(0, 2000)
    rare = np.concatenate([[0], np.cumsum(draws.sample >= 64)])
    assert np.abs(rare - np.arange(2001) * 2.6 / 66.6).max() <= 0.5 + 1e-9


def test_shares_of_datasets_stay_what_they_are():
    """Weights of samples count within a dataset where shares are given."""
    plain = Order(SIZES, {"a": 1.0, "b": 3.0}, 3).draws(0, 400)
    weighted = order({"a": 1.0, "b": 3.0}).draws(0, 400)
    assert np.array_equal(plain.dataset, weighted.dataset)
    seen = weighted.sample[weighted.dataset == 1]
    assert seen.min() >= 10 and len(set(seen[:20].tolist())) == 20


def test_without_shares_they_count_among_all_samples():
    found = order()
    assert found.shares == pytest.approx([72.5 / 112.5, 40 / 112.5])
    assert found.epoch_length is None
    draws = found.draws(0, 225)  # 112.5 in all: twice over
    for number, label in enumerate("ab"):
        counts = counts_of(draws, number, SIZES[label])[-1]
        assert np.array_equal(counts, 2 * BY_HAND[label])


def test_a_weight_that_all_have_is_none():
    for weights in (None, {"a": 1.0, "b": 2.0}):
        plain = Order(SIZES, weights, 3)
        same = order(weights, runs={"a": [(50, 0.3), (40, 0.3)], "b": [(30, 0.3)]})
        assert list(plain.draws(0, 500)) == list(same.draws(0, 500))
    assert plain.substitute(0, 5, 2, 1) == same.substitute(0, 5, 2, 1)


@st.composite
def weightings(draw):
    """Runs of a dataset, one of which is drawn."""
    runs = draw(
        st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12).map(lambda n: n / 4)), max_size=6)
    )
    return [*runs, (draw(st.integers(1, 5)), draw(st.integers(1, 8)) / 10)]


@given(runs=weightings(), first=st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_any_weights_from_anywhere(runs, first):
    size = sum(count for count, _ in runs)
    weight = np.repeat([w for _, w in runs], [n for n, _ in runs])
    found = order({"a": 1.0}, {"a": size}, {"a": runs})
    draws = found.draws(0, 400)
    counts = counts_of(draws, 0, size)
    assert (counts[-1][weight == 0] == 0).all()
    assert np.abs(counts - np.arange(401)[:, None] * weight / weight.sum()).max() < 3
    part = order({"a": 1.0}, {"a": size}, {"a": runs}).draws(first, 40)
    whole = found.draws(0, first + 40)
    assert np.array_equal(part.sample, whole.sample[first:])
    assert np.array_equal(part.epoch, whole.epoch[first:])
    sightings = list(zip(draws.sample.tolist(), draws.epoch.tolist(), strict=True))
    assert len(set(sightings)) == len(sightings)  # each sighting has a number of its own


@pytest.mark.parametrize("weights", [None, {"a": 0.7, "b": 0.3}])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_and_resumes_change_nothing(weights, ranks):
    whole = list(order(weights).draws(0, 12 * 40))
    shared = []
    for step in range(17, 40):
        fresh = order(weights)  # a process that starts at this step
        for rank in range(ranks):
            part = rank_slice(12, rank, ranks)
            shared += fresh.draws(12 * step + part.start, part.stop - part.start)
    assert shared == whole[12 * 17 :]


def test_a_few_among_a_hundred_million_are_drawn_in_their_share():
    """Where a table of the shares would round them up by far; and far into a run."""
    big = 10**8
    found = order({"a": 1.0}, {"a": big}, {"a": [(big - 3, 1.0), (3, 0.01)]})
    draws = found.draws(10**15, 4096)
    assert draws.sample.max() < big - 3
    total = (big - 3) * 100 + 3  # hundredths: a draw of one of the three every 1e10 / 3
    rare = [found.draws(int(k * total / 3) - 2, 4).sample.max() >= big - 3 for k in (0.5, 1.5, 2.5)]
    assert rare == [True, True, True]


def test_what_stands_in_has_a_weight_too():
    found = order({"a": 1.0, "b": 1.0})
    for sample in (0, 65, 88):
        same = BY_HAND["a"] == BY_HAND["a"][sample]
        for attempt in range(30):
            assert same[found.substitute(0, sample, 1, attempt)]


@pytest.mark.parametrize(
    ("weights", "runs", "words"),
    [
        ({"a": 1.0, "b": 1.0}, {"b": [(30, 0.0)]}, "'b' has samples of weight 0 alone"),
        (None, {"a": [(90, 0.0)], "b": [(30, 0.0)]}, "all samples of a, b have weight 0"),
        (None, {"b": [(29, 1.0)]}, "30 samples and weights of 29"),
        (None, {"b": [(30, -1.0)]}, r"weights hold \(30, -1.0\)"),
        (None, {"b": [(30, float("nan"))]}, r"weights hold \(30, nan\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(weights, runs, words):
    with pytest.raises(FoundryError, match=words):
        order(weights, runs=runs)


@pytest.fixture
def weighted(datasets, tmp_path):
    """The lever's windows: those of its first two episodes never, of the last one thrice."""
    folder = shutil.copytree(datasets["robot"]["lever"], tmp_path / "lever")
    info = json.loads((folder / "dataset.json").read_text())
    anchors = list(info["lengths"])  # all steps are
    runs = [(sum(anchors[:2]), 0.0), (sum(anchors[2:-1]), 1.0), (anchors[-1], 3.0)]
    (folder / "dataset.json").write_text(json.dumps(info | {"weights": runs}))
    return {"robot": {"lever": folder}}, runs


def loader_of(sources, tokenizer, normalizer, workers=0, **changes):
    data = RobotData(batch_size=8, inputs=INPUTS, **changes)
    resources = LoaderResources(workers=workers)
    return build_loader(
        DataConfig(robot=data), sources, seed=1, tokenizer=tokenizer, normalizer=normalizer,
        resources=resources,
    )  # fmt: skip


def ids_of(loader, steps, world=1, first=0):
    rows = []
    for step in range(first, steps):
        parts = [loader.batch(step, rank, world)["robot"] for rank in range(world)]
        rows.append(torch.cat([part["sample_ids"] for part in parts]).tolist())
    return rows


def test_batches_follow_them_on_any_ranks(weighted, tokenizer, normalizer):
    sources, ((never, _), (once, _), (thrice, _)) = weighted
    steps = (once + 3 * thrice) // 8
    whole = ids_of(loader_of(sources, tokenizer, normalizer), steps)
    counts = np.bincount(np.concatenate(whole), minlength=never + once + thrice)
    assert counts[:never].sum() == 0
    assert set(counts[never : never + once].tolist()) <= {0, 1}
    assert set(counts[-thrice:].tolist()) <= {2, 3}
    for world in (2, 4):
        again = ids_of(loader_of(sources, tokenizer, normalizer), steps, world, first=3)
        assert again == whole[3:]
    alike = loader_of(sources, tokenizer, normalizer, sample_weights=False)
    assert min(min(row) for row in ids_of(alike, steps)) < never


def test_resumed_batches_are_equal_to_the_bit_with_workers_too(weighted, tokenizer, normalizer):
    sources, _ = weighted
    straight = loader_of(sources, tokenizer, normalizer)
    wanted = [straight.batch(step)["robot"] for step in range(5, 9)]
    resumed = loader_of(sources, tokenizer, normalizer, workers=1).batches(5)
    for batch, _ in zip(wanted, range(4), strict=True):
        found = next(resumed)["robot"]
        assert batch.keys() == found.keys()
        assert all(torch.equal(batch[name], found[name]) for name in batch)
    resumed.close()


def test_what_a_head_is_fitted_on_has_a_weight(weighted, tokenizer, normalizer):
    sources, ((never, _), *_) = weighted
    loader = loader_of(sources, tokenizer, normalizer)
    (dataset,) = loader.modalities["robot"].datasets
    chunks = loader.action_chunks(10**6)
    assert len(chunks) == len(dataset) - never
    assert np.array_equal(chunks[0], dataset.actions(never))


def test_weights_of_other_data_are_refused(weighted, tokenizer, normalizer):
    sources, _ = weighted
    path = sources["robot"]["lever"] / "dataset.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"weights": [[3, 1.0]]}))
    with pytest.raises(FoundryError, match="weights of 3"):
        loader_of(sources, tokenizer, normalizer)


@pytest.mark.parametrize(
    "runs",
    [
        3, "heavy", {"a": 1}, [3], [[3]], [["3", 1.0]], [[3, "1"]], [[3, 1.0, 2]], [[-1, 1.0]],
        [[1 << 70, 1.0]], [[1, -1.0]], [[1, float("nan")]], [[1, float("inf")]], [[1, 1e-300]],
        [[1, 1e300]], [[None, 1.0]],
    ],
)  # fmt: skip
def test_what_a_dataset_says_of_weights_is_checked(runs):
    with pytest.raises(FoundryError, match="sample weights") as refused:
        SampleWeights(runs)
    assert "from 1e-09 to 1e+09: convert the dataset again" in refused.value.hint


def test_weights_as_far_apart_as_may_be_are_drawn():
    """The deepest tree there is: every two-digit weight of 18 decades."""
    weights = [float(f"{a}.{b}e{e}") for e in range(-9, 9) for a in range(1, 10) for b in range(10)]
    runs = [(1, weight) for weight in weights]
    found = order({"a": 1.0, "b": 0.0}, {"a": len(runs), "b": 1}, {"a": runs}).draws(0, 1000)
    assert 0.89 < (found.sample >= 17 * 90).mean() < 0.91, "the last decade has nine tenths of it"
