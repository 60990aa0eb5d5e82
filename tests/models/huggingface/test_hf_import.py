"""Checkpoints of others become ours: from a folder or the hub, in shards, never held twice."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig
from foundry_core.models.huggingface.checkpoint import imported_tokenizer, local_folder
from foundry_core.models.huggingface.export import export_hf
from foundry_core.models.huggingface.pretrained import import_language, import_vlm
from foundry_core.models.io import load_model
from foundry_core.models.transformer import Transformer
from tasks.import_llm import ImportLlmRecipe
from tests.hf_checkpoints import FAMILIES, TEXT, make_llm, make_vlm

OTHER_FAMILY = pytest.mark.slow("one family of models stands for all in everyday runs")


def weights(folder: Path) -> ImportLlmRecipe:
    return ImportLlmRecipe(path=str(folder))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_native_weights_compute_the_same(tmp_path, name):
    """At most 1e-5 apart in float32, at every length to 256."""
    folder = make_llm(tmp_path / "theirs", name, max_shard_size="40KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    import_language(weights(folder), tmp_path / "ours", tmp_path, None)
    ours, _ = load_model(tmp_path / "ours")
    assert isinstance(ours, Transformer)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    export_hf(tmp_path / "ours", tmp_path / "back")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert type(back) is type(theirs)
    with torch.no_grad():
        for length in (1, 17, 128, 256):
            tokens = torch.randint(0, TEXT["vocab_size"], (2, length))
            expected = theirs(tokens).logits
            torch.testing.assert_close(ours(tokens), expected, atol=1e-5, rtol=0)
            torch.testing.assert_close(back(tokens).logits, expected, atol=1e-5, rtol=0)


def test_what_came_along_is_kept_and_goes_out_again(tmp_path):
    folder = make_llm(tmp_path / "theirs", "llama")
    import_language(weights(folder), tmp_path / "ours", tmp_path, None)
    tokenizer = Tokenizer.load(tmp_path / "ours")
    assert (tokenizer.eos, tokenizer.pad) == ("<eos>", "<eos>")
    assert tokenizer.encode("<eos>") != [tokenizer.eos_id]
    export_hf(tmp_path / "ours", tmp_path / "back")
    for name in ("chat_template.jinja", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    again = imported_tokenizer(tmp_path / "back")
    assert again.encode("some text") == tokenizer.encode("some text")


@pytest.mark.parametrize(
    "name",
    ["qwen3_vl", *(pytest.param(n, marks=OTHER_FAMILY) for n in FAMILIES if n != "qwen3_vl")],
)
def test_a_vlm_goes_in_and_out_again(tmp_path, name):
    folder = make_vlm(tmp_path / "theirs", name, max_shard_size="40KB")
    import_vlm(HFVLMConfig(path=str(folder)), tmp_path / "ours", tmp_path)
    export_hf(tmp_path / "ours", tmp_path / "back", max_shard_size="40KB")
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "back" / "preprocessor_config.json").is_file()
    import_vlm(HFVLMConfig(path=str(tmp_path / "back")), tmp_path / "again", tmp_path)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        ours, again = (tmp_path / place / file for place in ("ours", "again"))
        assert ours.read_bytes() == again.read_bytes(), file
    model, _ = load_model(tmp_path / "ours")
    theirs = type(model.model).from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        for length in (5, 64, 256):
            tokens = torch.randint(1, 200, (1, length))
            mask = torch.ones_like(tokens)
            expected = theirs(input_ids=tokens, attention_mask=mask).logits
            torch.testing.assert_close(model(None, tokens), expected, atol=1e-5, rtol=0)


def test_incomplete_or_foreign_weights_are_refused(tmp_path):
    folder = make_llm(tmp_path / "theirs", "llama", max_shard_size="40KB")
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    name, file = next(iter(document["weight_map"].items()))
    shard = (folder / file).rename(folder / "gone")
    with pytest.raises(FoundryError, match=f"{file} is missing"):
        import_language(weights(folder), tmp_path / "ours", tmp_path, None)
    shard.rename(folder / file)
    outside = {**document["weight_map"], name: "../gone.safetensors"}
    index.write_text(json.dumps({**document, "weight_map": outside}))
    with pytest.raises(FoundryError, match="is missing"):
        import_language(weights(folder), tmp_path / "ours", tmp_path, None)
    index.write_text(json.dumps(document))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 24}))
    with pytest.raises(FoundryError, match=r"is \[.*48.*\], its config.json asks for \[.*24.*\]"):
        import_language(weights(folder), tmp_path / "ours", tmp_path, None)


def test_code_and_pickles_of_others_are_not_loaded(tmp_path):
    folder = make_vlm(tmp_path / "theirs", "smolvlm")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FoundryError, match="cannot be loaded"):
        import_vlm(HFVLMConfig(path=str(folder)), tmp_path / "ours", tmp_path)
    (folder / "model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "model.C", "AutoModel": "model.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    for run in (
        lambda: import_vlm(HFVLMConfig(path=str(folder)), tmp_path / "ours", tmp_path),
        lambda: import_language(weights(folder), tmp_path / "ours", tmp_path, None),
    ):
        with pytest.raises(FoundryError, match="cannot be"):
            run()
    assert not (tmp_path / "ran").exists()


COMMIT = "a" * 40
PEAK = """
import gc, sys, threading
from pathlib import Path
import torch
from foundry_core.models.config import HFVLMConfig
from foundry_core.models.huggingface.pretrained import import_language, import_vlm
from foundry_core.models.io import load_model
from tasks.import_llm import ImportLlmRecipe

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(l for l in lines if l.startswith("RssAnon")).split()[1])

def peak(run):
    gc.collect()
    before, top, done = anonymous(), [0], threading.Event()
    def watch():
        while not done.wait(0.0005):
            top[0] = max(top[0], anonymous())
    thread = threading.Thread(target=watch); thread.start()
    kept = run(); done.set(); thread.join()
    return max(top[0], anonymous()) - before

kind, warm, big, out = sys.argv[1:]
def go(folder, place):
    if kind == "llm":
        return import_language(ImportLlmRecipe(path=folder), Path(place), Path(place), None)
    return import_vlm(HFVLMConfig(path=folder), Path(place), Path(place))
for place in ("warm", "big"):
    Path(out, place).mkdir(parents=True)
go(warm, out + "/warm"); load_model(Path(out, "warm"))
print(peak(lambda: go(big, out + "/big")), peak(lambda: load_model(Path(out, "big"))))
"""


@pytest.mark.slow("measures memory in processes of its own")
@pytest.mark.parametrize("kind", ["llm", "vlm"])
def test_no_weight_is_held_twice(tmp_path, monkeypatch, kind):
    """The peak of what a process allocates while it imports a checkpoint in shards and in half
    precision, and while it loads what it saved, which the file itself backs. Weights that were
    drawn only to be overwritten would be a model more."""
    from tests import hf_checkpoints

    make = make_llm if kind == "llm" else make_vlm
    name = "llama" if kind == "llm" else "qwen3_vl"
    warm = make(tmp_path / "warm", name)
    wide = {"vocab_size": 80_000, "hidden_size": 64}
    for text in (TEXT, hf_checkpoints.FAMILIES["qwen3_vl"]["config"]["text_config"]):
        for key, value in wide.items():
            monkeypatch.setitem(text, key, value)
    vision = hf_checkpoints.FAMILIES["qwen3_vl"]["config"]["vision_config"]
    monkeypatch.setitem(vision, "out_hidden_size", 64)
    big = make(tmp_path / "big", name, max_shard_size="4MB", half=True)
    assert len(list(big.glob("model-*.safetensors"))) > 1
    single = 2 * sum(p.stat().st_size for p in big.glob("*.safetensors"))
    command = [sys.executable, "-c", PEAK, kind, str(warm), str(big), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    importing, loading = map(int, done.stdout.split())
    assert single > 40e6
    assert importing < 1.15 * single, (importing, single)
    assert loading < 0.15 * single, (loading, single)
    assert importing < 1.35 * single, (importing, single)


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub that a download asks for."""

    folder: Path
    asked: list[str]

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body):
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith(f"/api/models/some/model/revision/{COMMIT}"):
            files = [{"rfilename": p.name} for p in sorted(self.folder.iterdir())]
            return self.send(
                json.dumps({"id": "some/model", "sha": COMMIT, "siblings": files}).encode(), body
            )
        if path.startswith(f"/api/models/some/model/tree/{COMMIT}"):
            rows = [
                {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": p.name}
                for p in sorted(self.folder.iterdir())
            ]
            return self.send(json.dumps(rows).encode(), body)
        prefix = f"/some/model/resolve/{COMMIT}/"
        file = self.folder / path.removeprefix(prefix)
        if path.startswith(prefix) and file.is_file():
            return self.send(file.read_bytes(), body, name=file.name)
        self.send(b"", body, status=404)

    def send(self, data, body, status=200, name="api"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    """(its address, the folder it serves, the requests it got)."""
    folder = make_llm(tmp_path / "served", "llama", max_shard_size="40KB")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    handler = type("Served", (Hub,), {"folder": folder, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, handler.asked
    server.shutdown()
    server.server_close()


def test_a_commit_of_the_hub_is_fetched(tmp_path, hub):
    address, served, asked = hub
    pinned = ImportLlmRecipe(source="some/model", revision=COMMIT)
    folder = local_folder(pinned, into=tmp_path / "hub", endpoint=address)
    found = {p.name for p in folder.iterdir() if p.is_file()}
    assert found == {p.name for p in served.iterdir()} - {"pytorch_model.bin", "modeling.py"}
    assert not any("pytorch_model.bin" in path or "modeling.py" in path for path in asked)
    import_language(weights(folder), tmp_path / "ours", tmp_path, None)
    ours, _ = load_model(tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(served)
    tokens = torch.randint(0, 200, (1, 9))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=0)


def test_what_the_hub_does_not_have_is_one_error(tmp_path, hub):
    wrong = ImportLlmRecipe(source="some/other", revision=COMMIT)
    with pytest.raises(FoundryError, match=f"'some/other' at {COMMIT} cannot be fetched"):
        local_folder(wrong, into=tmp_path / "hub", endpoint=hub[0])
