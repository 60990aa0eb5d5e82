"""A recipe is recorded as it is, for good: a secret in one is refused while planning."""

import pytest

from flows.cli import main
from foundry_core import masking
from foundry_core.config.documents import pipeline_names
from foundry_core.errors import FoundryError
from foundry_core.masking import secrets_in
from foundry_core.pipeline.graph import build_pipeline, load_pipeline
from foundry_core.pipeline.registry import stage_kind
from tests.support import KINDS, WORDS

SECRET = "Zq9-wholly-unlikely-value"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"url": "https://me:hunter2@host/data"}, "url (a password in a URL)"),
        ({"deep": [{"url": "s3://k:hunter2@bucket"}]}, "deep.0.url (a password in a URL)"),
        ({"x": "AKIAIOSFODNN7EXAMPLE"}, "x (the form of a key or token)"),
        ({"x": "hf_abcdefghijklmnopqrstuvwxyz0123"}, "x (the form of a key or token)"),
        ({"x": f"s3://bucket/{SECRET}/x"}, "x (the value of $AWS_SECRET_ACCESS_KEY)"),
        ({f"at {SECRET}": 1}, " (the value of $AWS_SECRET_ACCESS_KEY)"),
        ({"password": "hunter2"}, "password (called a secret)"),
        ({"api_key": "x"}, "api_key (called a secret)"),
        ({"hf_auth_token": "x"}, "hf_auth_token (called a secret)"),
    ],
)
def test_what_is_a_secret(setting, told):
    found = list(secrets_in(setting, {"AWS_SECRET_ACCESS_KEY": SECRET}))
    assert found == [told]
    assert SECRET not in told and "hunter2" not in told


@pytest.mark.parametrize(
    "setting",
    [
        {"mask_token": "<mask>", "key": "left", "keys": ["a"], "tokens": 100, "tokenizer": "llm"},
        {"url": "https://host:8080/x@y", "path": "s3://bucket/a:b/c"},
        {"url": "s3://***:***@bucket"},
        {"password": "", "api_key": None, "access_key": 3},
        {"digest": "0f" * 32, "x": "a short one"},
    ],
)
def test_what_is_none(setting):
    assert list(secrets_in(setting, {"LAB_TOKEN": "short", "LAB_NAME": "a short one"})) == []


def test_every_pipeline_that_comes_along_holds_none():
    loaded = []
    for name in pipeline_names():
        try:
            load_pipeline(name, kinds=stage_kind)
        except FoundryError as error:
            assert "is not installed" in error.message, name  # an exam of an extra
            continue
        loaded.append(name)
    assert {"demo", "foundry-vla-1.7b"} <= set(loaded)


def test_the_field_is_named_and_the_value_is_not(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    stages = {"a": {"kind": "emit", "recipe": {"word": f"from {SECRET}"}}}
    with pytest.raises(FoundryError) as raised:
        build_pipeline({"stages": stages}, kinds=KINDS.__getitem__)
    message = str(raised.value)
    assert "pipeline.stages.a.recipe.word (the value of $AWS_SECRET_ACCESS_KEY)" in message
    assert "holds no secrets" in message and "environment" in raised.value.hint
    assert SECRET not in message


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_command_ends_with_2_and_leaves_nothing(small_home, monkeypatch, capsys, command):
    assert main([command, str(WORDS), "-o", "first.word=https://me:hunter2@host/x"]) == 2
    out, err = capsys.readouterr()
    assert "stages.first.recipe.word (a password in a URL)" in err
    assert "hunter2" not in out + err
    assert not small_home.exists()


def test_a_shape_that_costs_is_bounded():
    assert list(secrets_in({"x": "://" + "a:" * 200_000})) == []
    assert masking.mask_text("x" * 10) == "x" * 10
