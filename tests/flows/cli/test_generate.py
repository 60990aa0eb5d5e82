"""`foundry generate`: which models it takes, what it prints, what it refuses."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from flows.cli import main
from flows.cli.commands.generate import shown
from foundry_core.data.robot.prompts import IMAGE, OBS
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.models.build import build_model
from foundry_core.models.config import (
    ConvViTConfig,
    ProjectorConfig,
    TransformerConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.io import save_model

LANGUAGE = TransformerConfig(vocab_size=260, dim=16, n_layers=1, n_heads=2, ffn_dim=16, context=40)
SEEING = VLMConfig(
    language=LANGUAGE,
    vision=ConvViTConfig(
        image_size=32, dim=16, n_layers=1, n_heads=2, stem_dims=(8, 8), stem_groups=4
    ),
    projector=ProjectorConfig(pixel_shuffle=2),
    image_token_id=258,
)
POLICY = VLAConfig(
    backbone=SEEING,
    tap_layers=1,
    horizon=2,
    action_dim=3,
    proprio_dim=0,
    obs_token_id=259,
    head=RegressionHeadConfig(dim=16, n_layers=1, n_heads=2),
)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer.train(["some text"], 258)
    for token in (IMAGE, OBS):
        tokenizer.add_special(token)
    return tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """Language model, VLM, policy, and one whose words are control sequences; saved."""
    root = tmp_path_factory.mktemp("models")
    configs = {"llm": LANGUAGE, "vlm": SEEING, "vla": POLICY, "rude": LANGUAGE}
    for name, config in configs.items():
        model = build_model(config, seed=0)
        if name == "rude":
            says(model, tokenizer.encode("\x1b")[0])
        save_model(root / name, model)
        tokenizer.save(root / name)
    return root


@torch.no_grad()
def says(model, token: int) -> None:
    model.norm.weight.zero_()
    model.norm.bias.copy_(torch.eye(16)[0])
    model.head.weight.zero_()
    model.head.weight[token, 0] = 9.0


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)


@pytest.fixture
def run(capsys):
    """(exit code, standard output, standard error) of a command."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(path)
    return path


def test_text_goes_out_and_the_count_goes_aside(run, folders):
    code, out, err = run("generate", folders / "llm", "some", "--max-tokens", 5)
    assert code == 0
    assert "foundry: 5 tokens after 4, " in err
    assert "cut at --max-tokens" in err
    code, as_json, err = run("generate", folders / "llm", "some", "--max-tokens", 5, "--json")
    found = json.loads(as_json)
    assert (found["ended"], found["tokens"], found["prompt_tokens"]) == ("length", 5, 4)
    assert (shown(found["text"]) + "\n", "") == (out, err)


def test_a_store_s_model_by_name_key_and_prefix(run, folders):
    kind = "train_llm"
    code, out, err = run("lineage", "import", kind, folders / "llm", "--name", "m@v1", "--json")
    assert code == 0, err
    key = json.loads(out)["key"]
    _, expected, _ = run("generate", folders / "llm", "some", "--max-tokens", 5)
    for ref in ("m@v1", key, key[:10]):
        code, out, err = run("generate", ref, "some", "--max-tokens", 5)
        assert (code, out) == (0, expected), err


def test_draws_are_repeated_by_their_seed(run, folders):
    def drawn(seed):
        options = ("--temperature", 1, "--top-k", 50, "--top-p", 0.95, "--seed", seed, "--json")
        _, out, _ = run("generate", folders / "llm", "some", "--max-tokens", 9, *options)
        return json.loads(out)["text"]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_context_ends_it(run, folders):
    _, out, _ = run("generate", folders / "llm", "some", "--max-tokens", 99, "--json")
    found = json.loads(out)
    assert found["ended"] in ("context", "stop")
    assert found["tokens"] <= 36


def test_pictures_and_standard_input(run, folders, picture, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("some text"))
    images = ("--image", picture, "--image", picture)
    arguments = ("-", *images, "--max-tokens", 3, "--json")
    code, out, err = run("generate", folders / "vlm", *arguments)
    assert code == 0, err
    assert json.loads(out)["prompt_tokens"] == 2 * 4 + 9


def test_no_terminal_is_commanded_by_a_model(run, folders):
    code, out, _ = run("generate", folders / "rude", "some", "--max-tokens", 3)
    assert (code, out) == (0, r"\x1b\x1b\x1b" + "\n")
    _, out, _ = run("generate", folders / "rude", "some", "--max-tokens", 3, "--json")
    assert json.loads(out)["text"] == "\x1b" * 3


def test_what_is_no_model_that_writes(run, folders, tmp_path, tokenizer):
    code, out, err = run("generate", folders / "vla", "some")
    assert (code, out) == (2, "")
    assert "is a policy: it acts, and writes no text" in err
    code, _, err = run("generate", tmp_path, "some")
    assert code == 2
    assert "is not a saved model" in err
    tokenizer.save(tmp_path / "data")
    run("lineage", "import", "train_tokenizer", tmp_path / "data", "--name", "data@v1")
    code, _, err = run("generate", "data@v1", "some")
    assert code == 2
    assert "is no model: it has no config.json" in err
    code, _, err = run("generate", "nothing", "some")
    assert code == 2
    assert "'nothing' is no folder and no artifact" in err
    code, _, err = run("generate", "data@v2", "some")
    assert code == 2
    assert "data@v1" in err  # the nearest name


def test_pictures_that_cannot_be_shown(run, folders, picture, tmp_path):
    code, _, err = run("generate", folders / "llm", "some", "--image", picture)
    assert code == 2
    assert "a language model sees no images" in err
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    code, _, err = run("generate", folders / "vlm", "some", "--image", broken)
    assert code == 2
    assert "broken.png is not a readable image" in err
    code, _, err = run("generate", folders / "vlm", "some", "--image", tmp_path / "none.png")
    assert code == 2
    assert "none.png' cannot be read: No such file" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-tokens", 0), "max_tokens"),
        (("--temperature", -1), "temperature"),
        (("--top-p", 2), "top_p"),
        (("--device", "abacus"), "is no device"),
        (("--device", "cuda"), "no GPU"),
    ],
)
def test_settings_without_sense(run, folders, options, said):
    if options[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    code, out, err = run("generate", folders / "llm", "some", *options)
    assert (code, out) == (2, "")
    assert said in err


def test_a_prompt_longer_than_the_context(run, folders):
    code, _, err = run("generate", folders / "llm", "x" * 50)
    assert code == 2
    assert "the prompt has 50 tokens" in err
