"""Nothing that is written down holds a secret that was typed or that the environment holds."""

import json
import time

import pytest

from foundry_core.errors import FoundryError
from foundry_core.lineage.checkout import git_state
from foundry_core.lineage.event_types import AblationStarted, AttemptFinished, RunStarted
from foundry_core.masking import (
    is_secret,
    mask_command,
    mask_environment,
    mask_settings,
    mask_text,
)

SECRET = "hunter2hunter2"
ENVIRONMENT = {
    "FOUNDRY_STORE": f"s3://user:{SECRET}@host/bucket",
    "FOUNDRY_API_KEY": SECRET,
    "FOUNDRY_DB_PASS": SECRET,
    "FOUNDRY_DB_PWD": SECRET,
    "PREFECT_JWT": SECRET,
    "RAY_JOB_HEADERS": json.dumps({"Authorization": f"Bearer {SECRET}XYZ"}),
    "RAY_AUTH_TOKEN": SECRET,
    "PREFECT_API_DATABASE_CONNECTION_URL": f"postgres://u:{SECRET}@h/d",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "RAY_ADDRESS": f"ray://u:p@{SECRET}@h:10001",
    "PREFECT_EXTRA": f'{{"password": "{SECRET}"}}',
    "SLURM_NOTE": f"the value itself: {SECRET}",
    "OMP_NUM_THREADS": "1",
    "HOME": "/root",
}
RECORDED = ("FOUNDRY_", "OMP_", "RAY_", "PREFECT_", "SLURM_", "AWS_")


def test_no_recorded_variable_holds_a_secret():
    found = mask_environment(ENVIRONMENT, RECORDED)
    assert SECRET not in json.dumps(found)
    assert set(found) == {
        *("FOUNDRY_STORE", "OMP_NUM_THREADS", "PREFECT_EXTRA", "RAY_ADDRESS", "SLURM_NOTE")
    }
    assert found["FOUNDRY_STORE"] == "s3://***@host/bucket"
    assert found["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    "typed",
    [
        ["--password", SECRET],
        ["--password=" + SECRET],
        ["--api-token", SECRET],
        ["-o", "x.token=" + SECRET],
        ["-ox.token=" + SECRET],
        ["--override=x.hub.secret=" + SECRET],
        ["-o", f"x.hub={{token: {SECRET}}}"],
        ["-o", f'x.hub={{"api_key": "{SECRET}"}}'],
        ["-o", f"x.path=https://u:{SECRET}@host/a"],
        ["-o", f"x.path=https://host/a?token={SECRET}&b=1"],
        ["-o", f"x.path=https://u:a/{SECRET}@host/a"],
        ["--header", f"Authorization: Bearer {SECRET}"],
        ["--vary", f"x.password=[{SECRET}]"],
        ["-o", f"x.hub={{'password': 'with spaces, {SECRET}'}}"],
        ["-o", f"x.hub={{passwords: [a, {SECRET}]}}"],
        ["DB_PWD=" + SECRET],
    ],
)
def test_no_word_of_a_command_holds_a_secret(typed):
    masked = mask_command(["foundry", "run", "demo", *typed, "-o", "a.lr=1"], {})
    assert SECRET not in " ".join(masked)
    assert masked[:3] == ["foundry", "run", "demo"] and masked[-1] == "a.lr=1"


def test_what_is_no_secret_is_kept():
    words = ["-o", "llm.training.tokens=1000000", "-o", "text.tokenizer=bpe", "-o", "a.b={c: 1}"]
    assert mask_command(words, {}) == words
    assert not any(map(is_secret, ("GIT_AUTHOR_NAME", "PWD", "OLDPWD", "image_token_id")))


def test_values_of_the_environment_are_masked_wherever_they_stand():
    text = f"cloning with {SECRET}XYZ, then {SECRET}"
    assert mask_text(text, ENVIRONMENT) == "cloning with ***, then ***"


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "ghp_" + "a1" * 15,
        "hf_" + "a1" * 15,
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_known_shapes_are_masked(secret):
    assert mask_text(f"it said {secret}", {}) == "it said ***"


def test_a_place_that_a_variable_names_is_no_secret(tmp_path):
    text = f"reading {tmp_path}"
    assert mask_text(text, {"SSL_KEY_FILE": str(tmp_path)}) == text


def test_events_hold_no_secret(monkeypatch):
    monkeypatch.setenv("LAB_JWT", SECRET)
    typed = [["x.token", "abc"], ["x.hub", {"password": "abc"}], ["x.note", f"see {SECRET}"]]
    started = RunStarted(
        run_id="r",
        pipeline="p",
        stages=[],
        overrides=[*typed, ["x.training.tokens", 5]],
        argv=["foundry", "-o", "x.token=abc", f"--note={SECRET}"],
    ).data()
    assert started["overrides"] == [
        ["x.token", "***"],
        ["x.hub", {"password": "***"}],
        ["x.note", "see ***"],
        ["x.training.tokens", 5],
    ]
    assert started["argv"] == ["foundry", "-o", "x.token=***", "--note=***"]
    ablation = AblationStarted(
        ablation_id="a",
        base_pipeline="p",
        variants=[{"variant": "v", "overrides": typed}],
        vary={"x.token": ["abc"]},
    ).data()
    assert ablation["vary"] == {"x.token": "***"}
    assert "abc" not in json.dumps(ablation) and SECRET not in json.dumps(ablation)
    error = f"cannot reach https://u:abc@host with {SECRET}"
    failed = AttemptFinished(key="k", attempt="a1", state="failed", error=error).data()
    assert failed["error"] == "cannot reach https://***@host with ***"


def test_an_error_shows_no_password_of_a_url():
    error = FoundryError("s3://user:abc@bucket: may not read", "see http://u:abc@host")
    assert "abc" not in str(error) and "bucket" in str(error)


def test_masking_a_long_line_takes_a_moment():
    start = time.process_time()
    for text in ("a" * 2_000_000, "http://a:" * 100_000, "eyJ" * 300_000, "x.y=" * 300_000):
        mask_text(text, ENVIRONMENT)
        mask_command([text], ENVIRONMENT)
        mask_settings({"a": text})
    assert time.process_time() - start < 30


def test_an_uncommitted_secret_does_not_enter_the_diff(checkout, monkeypatch):
    monkeypatch.setenv("LAB_TOKEN", SECRET)
    (checkout / "code.py").write_text(f"key = '{SECRET}'\n")
    assert "+key = '***'" in git_state(checkout)["diff"]
