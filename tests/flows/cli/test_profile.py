"""`foundry profile` as it is typed: what it refuses, what it prints, what it leaves: nothing."""

import json
from pathlib import Path

import pytest

from flows.cli import main
from foundry_core.training.profiling.ceiling import Ceiling, Peaks
from foundry_core.training.profiling.counting import HostRead
from foundry_core.training.profiling.graphs import Graphs
from foundry_core.training.profiling.memory import AllocatorPeaks, Memory
from foundry_core.training.profiling.operators import Operator, Operators
from foundry_core.training.profiling.result import Arithmetic, Part, Profile, Setting, StepTimes
from tests.stories import write_stories

pytestmark = pytest.mark.usefixtures("known_code")

QUICK = ("--steps", "2", "--warmup", "1")


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> Path:
    """Tokenizer, text and a small language model, over texts in a file."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return write_stories(tmp_path)


def refused(capsys, *words) -> dict[str, str]:
    capsys.readouterr()
    assert main(["profile", *map(str, words), "--json"]) == 2
    return json.loads(capsys.readouterr().out)


def test_what_is_missing_is_one_error_with_its_command(pipeline, capsys):
    change = ("-o", "llm.data.text.batch_size=4", "-o", "stories.source.format=jsonl")
    answer = refused(capsys, pipeline, "llm", *change)
    assert answer["error"] == "stages 'stories', 'tokenizer' are not built yet"
    command = f"foundry run {pipeline} {' '.join(change)} --only stories"
    assert answer["hint"] == command


def test_what_trains_nothing_and_what_is_unknown(pipeline, capsys):
    answer = refused(capsys, pipeline, "stories")
    assert answer["error"] == "stage 'stories' (convert_text) trains nothing"
    assert answer["hint"] == "stages that do: llm"
    assert refused(capsys, pipeline, "lm")["hint"] == "did you mean 'llm'?"
    assert "0 steps" in refused(capsys, pipeline, "llm", "--steps", 0)["error"]
    nowhere = refused(capsys, pipeline, "llm", "--trace", pipeline.parent / "no" / "trace.json")
    assert nowhere["error"].endswith("its folder does not exist")


def part(name: str, **numbers: float) -> Part:
    known = {"parameters": 0, "activation_bytes": 0}
    known |= {
        f"{way}_{what}": 0.0 for way in ("forward", "backward") for what in ("seconds", "flops")
    }
    return Part(name=name, **{**known, **numbers})


def large() -> Profile:
    """With numbers as wide as they come."""
    top = [
        Operator(
            name="aten::" + "x" * 60, calls=123456.0, seconds=99.9, share=0.99, is_product=True
        )
    ]
    return Profile(
        setting=Setting(
            stage="vla",
            device="NVIDIA GeForce RTX 4090 Laptop Edition with a Long Name",
            threads=16,
            torch="2.13.0+cu130",
            precision="bf16_weights",
            compile="blocks",
            strategy="fsdp",
            recompute=("language", "vision", "head"),
            micro_batch=128,
            loader_workers=16,
            workers=8,
            batch={"robot": 1024, "captions": 1024, "text": 1024},
        ),
        times=StepTimes(
            warmup=3,
            each=[9.99] * 10,
            median=9.99,
            least=9.9,
            data_wait=1.0,
            data_wait_share=0.1,
            samples_per_second=12345.6,
            tokens_per_second=123456789.0,
        ),
        parts=[
            part(
                name,
                parameters=123_000_000_000,
                forward_seconds=9.999,
                backward_seconds=9.999,
                forward_flops=1.23e15,
                activation_bytes=123 * 2**30,
            )
            for name in ("language", "vision", "projector", "head", "output", "")
        ],
        phases=dict.fromkeys(("data", "prepare", "norm", "optimizer", "average", "rest"), 9.999),
        watched_seconds=179.99,
        operators=Operators(
            steps=3, step_seconds=9.99, top=top, products=0.5, others=0.3, outside=0.2
        ),
        memory=Memory(
            weights={"language": 2**40},
            buffers=0,
            gradients=2**40,
            moments=2**41,
            average=2**40,
            activations={"language": 2**40},
            weight_copies=2**39,
            peaks=AllocatorPeaks(allocated=70 * 2**30, reserved=75 * 2**30),
        ),
        unused=[f"backbone.language.blocks.{i}.attention.query.weight" for i in range(12)],
        frozen=7,
        host_reads=[HostRead(what="aten::_local_scalar_dense", where="models/vlm.py:12", count=3)],
        arithmetic=Arithmetic(flops=1e15, how="counted", rate=5e14, mfu=0.5),
        ceiling=Ceiling(
            peaks=Peaks(flops=989e12, bandwidth=3.35e12, known=True, how="P: stated; B: stated"),
            eager=0.6,
            products=0.9,
            now=0.7,
        ),
        graphs=[
            Graphs(what="the whole loss", graphs=3, breaks=2, reasons=("a call of print",)),
            Graphs(what="head: Block, one of 24", graphs=0, breaks=0, reasons=(), error="no way"),
        ],
        notes=["one of 8 workers"],
    )


def test_the_widest_report_fits_80_columns(capsys, monkeypatch):
    from rich.console import Console

    from flows.cli.commands import profile_output
    from flows.reports.profiling import StageProfile

    for terminal in (False, True):
        console = Console(width=80, highlight=False, force_terminal=terminal, no_color=True)
        monkeypatch.setattr(profile_output, "stdout", lambda console=console: console)
        found = StageProfile(pipeline="big", stage="vla", kind="train_vla", profile=large())
        profile_output.show(found)
        lines = capsys.readouterr().out.splitlines()
        plain = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in lines]
        assert max(map(len, plain)) <= 80
        assert sum("…" in line for line in plain) == 1  # the operator's name
        text = " ".join(" ".join(plain).split())
        for said in (
            "MFU 50.0 % of 989 TFLOP/s",
            "12 parameters get no gradient",
            "and 4 more; 7 parameters are frozen",
            "3 × aten::_local_scalar_dense at models/vlm.py:12",
            "the whole loss: 3 graphs, 2 breaks",
            "a call of print",
            "head: Block, one of 24: cannot be traced: no way",
            "most at once 70 GiB",
            "180 s",
        ):
            assert said in text, said


@pytest.mark.slow("profiles real trainings")
def test_a_profile_leaves_no_artifact_no_run_and_no_file(pipeline, capsys, tmp_path):
    assert main(["run", str(pipeline), "--only", "stories", "--json"]) == 0
    home = tmp_path / "home"

    def files() -> dict[str, int]:
        """All but the cache, to which a plan adds what it learned of the code."""
        found = {p.relative_to(home): p.stat().st_mtime_ns for p in home.rglob("*") if p.is_file()}
        return {str(p): time for p, time in found.items() if p.parts[0] != "cache"}

    before = files()
    out, trace = tmp_path / "profile.json", tmp_path / "trace.json"
    capsys.readouterr()
    written = ("--out", str(out), "--trace", str(trace))
    changes = ("-o", "llm.data.text.batch_size=4")
    assert main(["profile", str(pipeline), "llm", *QUICK, *written, *changes]) == 0
    printed = capsys.readouterr().out
    assert files() == before
    found = json.loads(out.read_text())
    assert (found["pipeline"], found["stage"], found["kind"]) == ("stories", "llm", "train_llm")
    assert found["setting"]["batch"] == {"text": 4}
    assert found["arithmetic"]["how"] == "6 N + 12 L H Q T per token"
    assert json.loads(trace.read_text())["traceEvents"]
    assert max(map(len, printed.splitlines())) <= 80
    assert "llm of stories (train_llm)" in printed
    assert "no MFU, as no peak is known" in printed
    assert main(["profile", str(pipeline), "llm", *QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["setting"]["batch"] == {"text": 6}
    assert files() == before
