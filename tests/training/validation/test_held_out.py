"""Which samples are read: spread out, whole, the same on any number of ranks."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundry_core.training.distributed import World
from foundry_core.training.objectives import text_targets
from foundry_core.training.validation.config import ValidationConfig
from foundry_core.training.validation.held_out import HeldOut, evenly, samples_of, without_loss


@given(size=st.integers(1, 500), data=st.data())
def test_evenly_spaced_samples_are_different_ones_of_every_part(size, data):
    count = data.draw(st.integers(1, size))
    found = evenly(count, size)
    assert len(set(found)) == count
    assert all(0 <= index < size for index in found)
    gaps = [b - a for a, b in zip([-1, *found], [*found, size], strict=True)]
    assert max(gaps) <= size / count + 1


@pytest.mark.parametrize(
    ("changes", "passes", "found"),
    [
        ({}, 1, {"a": 48, "b": 20}),  # 200 steps of 32 samples, 1.5 %, by two datasets
        ({}, 2, {"a": 24, "b": 20}),
        ({"samples": 30}, 2, {"a": 30, "b": 20}),
        ({"every": 1, "share": 0.001}, 2, {"a": 1, "b": 1}),
    ],
)
def test_how_many(changes, passes, found):
    assert samples_of(ValidationConfig(**changes), 32, {"a": 1000, "b": 20}, passes) == found


class Rows:
    """A loader whose batches are the numbers of their samples."""

    def __init__(self, size):
        order = SimpleNamespace(
            drawn=lambda number: size, drawn_samples=lambda number, places: list(places)
        )
        self.modalities = {"text": SimpleNamespace(labels=["x"], order=order)}

    def rows(self, name, label, indices):
        tokens = torch.tensor(indices)[:, None].expand(-1, 4)
        return {"tokens": tokens, "segments": torch.zeros(len(indices), 4, dtype=torch.int32)}


@given(
    size=st.integers(1, 60),
    count=st.integers(1, 60),
    ranks=st.integers(1, 5),
    rows=st.integers(1, 9),
)
def test_ranks_share_the_samples_and_make_as_many_batches(size, count, ranks, rows):
    held_out = HeldOut(loader=Rows(size), counts={"text": {"x": min(size, count)}})
    seen, batches = [], set()
    for rank in range(ranks):
        made = list(held_out.batches("text", "x", rows, World(rank=rank, size=ranks)))
        batches.add(len(made))
        for batch in made:
            assert len(batch["tokens"]) <= rows
            real = text_targets(batch["segments"]).any(dim=1)
            seen += batch["tokens"][real, 0].tolist()
    assert len(batches) == 1
    assert sorted(seen) == evenly(min(size, count), size)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("captions", {"target_mask": torch.ones(3, 5, dtype=torch.bool)}),
        ("robot", {"action_mask": torch.ones(3, 2, 4, dtype=torch.bool)}),
    ],
)
def test_repeated_rows_have_nothing_to_predict(name, batch):
    spare = torch.tensor([False, True, True])
    (mask,) = without_loss(name, batch, spare).values()
    assert mask[0].all()
    assert not mask[1:].any()
