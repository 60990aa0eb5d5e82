import math

import pytest
import torch
from decoding import full_logits
from model_zoo import IMAGE, VOCABULARY, build, language_config, vlm_config

from foundry_core.errors import FoundryError
from foundry_core.models import generation
from foundry_core.models.generation import Continuation, Generated, generate, pick, score, stream
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import Prompts
from foundry_core.models.noise import Key

ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]
DRAWN = GenerationConfig(max_tokens=8, temperature=1.0)


def by_hand(model, row: list[int], count: int) -> list[int]:
    """The likeliest tokens, without a cache."""
    row = list(row)
    with torch.no_grad():
        for _ in range(count):
            row.append(int(full_logits(model, [row], Prompts.of([row]))[0].argmax()))
    return row[-count:]


@pytest.fixture(scope="module")
def model():
    return build(language_config(context=24)).eval()


def test_the_likeliest_tokens(model):
    found = generate(model, Prompts.of(ROWS), GenerationConfig(max_tokens=6))
    for row, written in zip(ROWS, found, strict=True):
        assert list(written.tokens) == by_hand(model, row, 6)
        assert written.ended == "length"


def test_a_stop_token_ends_its_row_alone(model):
    rows = [by_hand(model, row, 6) for row in ROWS]
    stop = rows[1][2]
    ends = [row.index(stop) if stop in row else None for row in rows]
    assert ends[1] in (0, 1, 2)
    assert None in ends
    found = generate(model, Prompts.of(ROWS), GenerationConfig(max_tokens=6), stop={stop})
    for row, end, written in zip(rows, ends, found, strict=True):
        expected = "length" if end is None else "stop"
        assert written == Generated(tokens=tuple(row[:end]), ended=expected)


def test_nothing_is_computed_once_all_have_ended(model, monkeypatch):
    steps = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda *inputs: steps.append(1) or step(*inputs))
    first = by_hand(model, ROWS[0], 2)
    generate(model, Prompts.of(ROWS[:1]), GenerationConfig(max_tokens=9), stop={first[1]})
    assert len(steps) == (0 if first[0] == first[1] else 1)


def test_a_full_context_ends_a_row_whatever_the_others_do():
    model = build(language_config(context=9)).eval()
    found = generate(model, Prompts.of(ROWS), GenerationConfig(max_tokens=6))
    assert [(len(one.tokens), one.ended) for one in found] == [
        (2, "context"),
        (6, "length"),
        (5, "context"),
    ]
    (alone,) = generate(model, Prompts.of(ROWS[:1]), GenerationConfig(max_tokens=6))
    assert alone == found[0]


def test_a_prompt_as_long_as_the_context_is_refused():
    model = build(language_config(context=7))
    with pytest.raises(FoundryError, match=r"the prompt has 7 tokens.*context of 7"):
        generate(model, Prompts.of(ROWS), GenerationConfig())


def test_banned_tokens_are_never_written(model):
    first = by_hand(model, ROWS[0], 1)
    (found,) = generate(model, Prompts.of(ROWS[:1]), GenerationConfig(max_tokens=4), banned=first)
    assert first[0] not in found.tokens
    banned = range(40)
    drawn = generate(model, Prompts.of(ROWS), DRAWN, banned=banned)
    assert all(token >= 40 for one in drawn for token in one.tokens)


def test_a_drawn_row_is_the_same_in_any_company(model):
    ids = torch.tensor([5, 77, 1_000_000])
    together = generate(model, Prompts.of(ROWS), DRAWN, ids=ids)
    for row in range(3):
        alone = generate(model, Prompts.of(ROWS[row : row + 1]), DRAWN, ids=ids[row : row + 1])
        assert alone == [together[row]]
    turned = generate(model, Prompts.of(ROWS[::-1]), DRAWN, ids=ids.flip(0))
    assert turned == together[::-1]


def test_equal_prompts_differ_by_id_and_seed(model):
    prompts = Prompts.of([ROWS[0]] * 3)
    first = generate(model, prompts, DRAWN)
    assert len({one.tokens for one in first}) == 3
    assert generate(model, prompts, DRAWN) == first
    assert generate(model, prompts, DRAWN.model_copy(update={"seed": 1})) != first


@torch.no_grad()
def test_each_token_of_a_row_has_a_draw_of_its_own():
    model = build(language_config())
    model.head.weight.zero_()  # all tokens are as likely
    (found,) = generate(model, Prompts.of([[1]]), DRAWN.model_copy(update={"max_tokens": 20}))
    assert len(set(found.tokens)) > 10


LIKELIHOODS = torch.tensor([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_k": 9}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_p": 0.65}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.75}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"top_p": 0.01}, [0, 0, 0, 1]),
        ({"top_p": 1.0}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0, 3 / 7, 4 / 7]),  # of 9ths: 4 do not reach .7, 7 do
    ],
)
def test_tokens_are_drawn_as_often_as_they_should(changes, expected):
    config = GenerationConfig(**({"temperature": 1.0} | changes))
    count = 20_000
    key = Key(0, 0, torch.arange(count))
    drawn = pick(LIKELIHOODS.log().expand(count, -1), config, key)
    shares = drawn.bincount(minlength=4) / count
    torch.testing.assert_close(shares, torch.tensor(expected).float(), atol=0.015, rtol=0)
    assert all(shares[i] == 0 for i, share in enumerate(expected) if share == 0)


def test_temperature_0_takes_the_likeliest():
    key = Key(0, 0, torch.arange(5))
    tokens = pick(LIKELIHOODS.log().expand(5, -1), GenerationConfig(), key)
    assert tokens.tolist() == [3] * 5


def test_ties_of_the_last_kept_token_stay():
    logits = torch.zeros(4000, 4)
    drawn = pick(logits, GenerationConfig(temperature=1, top_k=2), Key(0, 0, torch.arange(4000)))
    assert (drawn.bincount(minlength=4) > 900).all()


@pytest.mark.parametrize("changes", [{"top_p": 0}, {"top_k": 0}, {"temperature": -1}])
def test_settings_without_sense_are_refused(changes):
    with pytest.raises(ValueError, match="greater than"):
        GenerationConfig(**changes)


def test_a_model_in_training_stays_in_training(model):
    model.train()
    try:
        tokens = stream(model, Prompts.of(ROWS), DRAWN)
        next(tokens)
        assert torch.is_grad_enabled()
        tokens.close()
        assert model.training
        generate(model, Prompts.of(ROWS), DRAWN)
        score(model, [Continuation(context=[1], tokens=[2])])
        assert model.training
    finally:
        model.eval()


@torch.no_grad()
def log_likelihoods(model, context: list[int], tokens: list[int]) -> list[float]:
    logits = model(torch.tensor([context + tokens]))[0].double().log_softmax(dim=-1)
    return [float(logits[len(context) + number - 1, token]) for number, token in enumerate(tokens)]


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"logit_soft_cap": 0.5}, {"tie_embeddings": True}])
def test_scores_are_sums_of_log_softmax(changes, monkeypatch):
    model = build(language_config(**changes)).eval()
    monkeypatch.setattr(generation, "_LOGITS", 3 * VOCABULARY)  # several pieces per batch
    items = [
        Continuation(context=[1, 2, 3], tokens=[4, 5]),
        Continuation(context=[6], tokens=[7, 8, 9, 10, 11]),
        Continuation(context=[1, 2, 3, 4, 5, 6, 7, 8], tokens=[9]),
        Continuation(context=[3, 2, 1], tokens=[4, 5]),
    ]
    found = score(model, items, batch=3)
    for item, one in zip(items, found, strict=True):
        expected = log_likelihoods(model, list(item.context), list(item.tokens))
        assert one.tokens == pytest.approx(expected, abs=1e-5)
        assert one.total == pytest.approx(math.fsum(expected), abs=1e-5)
        (alone,) = score(model, [item])
        assert alone.total == pytest.approx(one.total, abs=1e-5)


def test_greedy_says_whether_the_model_would_have_said_so(model):
    said = by_hand(model, ROWS[0], 4)
    wrong = [*said[:2], (said[2] + 1) % 40, said[3]]
    items = [Continuation(context=ROWS[0], tokens=tokens) for tokens in (said, wrong)]
    assert [one.greedy for one in score(model, items)] == [True, False]


def test_a_long_context_loses_its_oldest_tokens(model):
    context, tokens = list(range(1, 31)), [31, 32, 33]

    def scored(context, keep=0):
        item = Continuation(context=context, tokens=tokens, keep=keep)
        return score(model, [item], limit=10)[0].tokens

    # 10 are read: 8 of the context and the first two that are predicted.
    assert scored(context) == pytest.approx(scored(context[-8:]), abs=1e-6)
    assert scored(context) == pytest.approx(log_likelihoods(model, context[-8:], tokens), abs=1e-5)
    kept = [*context[:3], *context[-5:]]
    assert scored(context, keep=3) == pytest.approx(scored(kept), abs=1e-6)
    assert scored(context, keep=8) == pytest.approx(scored(context[:8]), abs=1e-6)
    with pytest.raises(FoundryError, match="3 tokens after 9 that stay is longer than the 10"):
        scored(context, keep=9)


def test_the_limit_is_the_model_s_context(model):
    context = list(range(1, 40))
    (found,) = score(model, [Continuation(context=context, tokens=[1])])
    expected = log_likelihoods(model, context[-24:], [1])  # its context is 24
    assert found.total == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize(("context", "tokens"), [([], [1]), ([1], [])])
def test_scores_need_both_sides(model, context, tokens):
    with pytest.raises(FoundryError, match="both need at least one"):
        score(model, [Continuation(context=context, tokens=tokens)])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_scores_after_images(attention):
    model = build(vlm_config(image_attention=attention)).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 2, 3, 32, 32), generator=generator).to(torch.uint8)
    items = [
        Continuation(context=[IMAGE] * 8 + [1], tokens=[2, 3], images=images[0]),
        Continuation(context=[5, 6], tokens=[7]),
        Continuation(context=[IMAGE] * 4 + [9], tokens=[8], images=images[1, :1]),
        Continuation(context=[IMAGE] * 8 + [4, 5], tokens=[2], images=images[1]),
    ]
    for item, one in zip(items, score(model, items), strict=True):
        tokens = torch.tensor([[*item.context, *item.tokens]])
        pictures = None if item.images is None else item.images[None]
        logits = model(pictures, tokens)[0].double().log_softmax(dim=-1)
        at = len(item.context) - 1
        expected = sum(float(logits[at + n, token]) for n, token in enumerate(item.tokens))
        assert one.total == pytest.approx(expected, abs=1e-5)
