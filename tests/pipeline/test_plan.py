"""The plan against an in-memory catalog: what runs, what is reused, and the reasons."""

from dataclasses import dataclass, field

import pytest
import yaml

from flows.console import plan_table
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import apply_overrides, parse_override
from foundry_core.errors import FoundryError
from foundry_core.identity.code import CodeFingerprint
from foundry_core.pipeline import spec as spec_module
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.plan import Committed, plan
from foundry_core.pipeline.reasons import Baseline, BaselineStage
from foundry_core.pipeline.spec import identify
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot
from tests.support import KINDS, WORDS, words


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))


@dataclass
class Memory:
    """A catalog in which everything named in `built` is committed with content = its key."""

    built: dict = field(default_factory=dict)
    corrupt: set = field(default_factory=set)
    failures: dict = field(default_factory=dict)

    def build(self, specs, contents=None):
        content = {}
        for name, spec in specs.items():
            content[name] = (contents or {}).get(name, f"content-{spec.key}")
            inputs = {
                (slot, label): content[up]
                for slot, named in spec.upstream.items()
                for label, up in named.items()
            }
            by_content = spec.input_content_key(
                {s: {lb: content[u] for lb, u in n.items()} for s, n in spec.upstream.items()}
            )
            self.built[spec.key] = (
                by_content,
                Committed(key=spec.key, content=content[name], inputs=inputs, seconds=2.0),
            )
        return self

    def status(self, kind, key):
        if key not in self.built:
            return "missing", "", None
        status = "corrupt" if key in self.corrupt else "ok"
        return status, "bad digest" if key in self.corrupt else "", self.built[key][1]

    def by_content(self, kind, input_content_key):
        for known, committed in self.built.values():
            if known == input_content_key and committed.key not in self.corrupt:
                return committed
        return None

    def last_failure(self, key):
        return self.failures.get(key)


def baseline_of(specs):
    stages = {name: BaselineStage.of(spec) for name, spec in specs.items()}
    return Baseline(run_id="r1", stages=stages)


def actions(result):
    return {name: row.action for name, row in result.stages.items()}


def first_reason(result, name):
    return result.stages[name].reasons[0]


def test_nothing_built_runs_everything():
    pipeline = words()
    result = plan(pipeline, identify(pipeline), Memory())
    assert set(actions(result).values()) == {"run"}
    assert first_reason(result, "first").category == "MISSING"


def test_everything_built_runs_nothing():
    pipeline = words()
    specs = identify(pipeline)
    catalog = Memory().build(specs)
    assert set(actions(plan(pipeline, specs, catalog)).values()) == {"reuse"}


def test_a_changed_leaf_cascades_with_its_root_cause():
    base = identify(words())
    catalog = Memory().build(base)
    changed = words("first.word=uno")
    result = plan(changed, identify(changed), catalog, baseline=baseline_of(base))
    assert actions(result) == {"first": "run", "model": "run", "total": "run", "second": "reuse"}
    reason = first_reason(result, "first")
    assert (reason.category, reason.path, reason.old, reason.new) == (
        "CONFIG", "first.word", "one", "uno",
    )  # fmt: skip
    assert first_reason(result, "model").category == "INPUT"
    assert first_reason(result, "model").upstream == "first"
    assert result.stages["model"].estimated_seconds == 2.0


def input_reasons(result, stage):
    return [(r.path, r.upstream) for r in result.stages[stage].reasons if r.category == "INPUT"]


class JoinRecipe(Recipe):
    end: str = ""


class Join(Stage):
    kind = "join"
    output = ArtifactType.TEXT_SHARDS
    inputs = {"texts": slot(ArtifactType.TEXT_SHARDS, many=True)}
    Recipe = JoinRecipe

    @staticmethod
    def run(ctx):
        return {}


CHAIN = """
name: chain
stages:
  first: {kind: emit}
  second: {kind: emit, recipe: {word: b}}
  both: {kind: join, inputs: {texts: [first, second]}}
  last: {kind: join, inputs: {texts: [both, first]}}
"""


def chain(*overrides):
    changed = apply_overrides(yaml.safe_load(CHAIN), [parse_override(text) for text in overrides])
    return build_pipeline(changed, kinds={**KINDS, "join": Join}.__getitem__)


def test_an_input_that_changed_for_several_reasons_names_them_all():
    base = identify(chain())
    catalog = Memory().build(base)
    changed = chain("first.word=x", "second.seed=5", "both.end=.")
    result = plan(changed, identify(changed), catalog, baseline=baseline_of(base))
    assert input_reasons(result, "both") == [("first", "first"), ("second", "second")]
    assert input_reasons(result, "last") == [
        ("both", "both"), ("both", "first"), ("both", "second"), ("first", "first"),
    ]  # fmt: skip
    why = list(plan_table(result).columns[3].cells)
    assert why[3] == "both, first, second changed"


def test_the_root_cause_is_named_through_a_stage_that_is_reused():
    base = identify(chain())
    catalog = Memory()
    changed = chain("first.word=x")
    specs = identify(changed)
    catalog.build({name: specs[name] for name in ("first", "second", "both")})
    result = plan(changed, specs, catalog, baseline=baseline_of(base))
    assert actions(result)["both"] == "reuse"
    assert input_reasons(result, "last") == [("both", "first"), ("first", "first")]


def test_seed_and_code_reasons():
    base = identify(words())
    catalog = Memory().build(base)
    changed = words("model.seed=8")
    result = plan(changed, identify(changed), catalog, baseline=baseline_of(base))
    assert first_reason(result, "model").category == "SEED"
    assert actions(result)["total"] == "reuse"


def test_early_cut_off_by_content():
    """`first` is rebuilt under another recipe and comes out equal: downstream is reused."""
    base = identify(words())
    catalog = Memory().build(base)
    changed = words("first.comment=other")
    specs = identify(changed)
    catalog.build({"first": specs["first"]}, {"first": f"content-{base['first'].key}"})
    result = plan(changed, specs, catalog)
    assert actions(result) == dict.fromkeys(base, "reuse")
    assert result.stages["model"].how == "content"
    assert result.stages["model"].artifact == base["model"].key


def test_other_content_of_an_input_is_no_reuse():
    specs = identify(words())
    catalog = Memory().build(specs)
    by_content, first = catalog.built[specs["first"].key]
    rebuilt = Committed(key=first.key, content="other", inputs={}, seconds=1.0)
    catalog.built[specs["first"].key] = (by_content, rebuilt)
    pipeline = words()
    result = plan(pipeline, specs, catalog)
    assert actions(result) == {"first": "reuse", "second": "reuse", "model": "run", "total": "run"}


def test_absent_intermediate_is_not_rebuilt_unless_needed():
    pipeline = words()
    specs = identify(pipeline)
    catalog = Memory().build(specs)
    del catalog.built[specs["first"].key]
    assert set(actions(plan(pipeline, specs, catalog)).values()) == {"reuse"}
    result = plan(pipeline, specs, catalog, force=["model"])
    assert actions(result)["first"] == "run"
    assert actions(result)["second"] == "reuse"


def test_corrupt_failed_forced_are_named():
    pipeline = words()
    specs = identify(pipeline)
    catalog = Memory().build(specs)
    catalog.corrupt.add(specs["model"].key)
    del catalog.built[specs["total"].key]
    catalog.failures[specs["total"].key] = "ValueError: x"
    result = plan(pipeline, specs, catalog, force=["second"])
    categories = {n: first_reason(result, n).category for n in ("model", "total", "second")}
    assert categories == {"model": "CORRUPT", "total": "FAILED", "second": "FORCED"}


def test_only_limits_the_scope():
    pipeline = words()
    result = plan(pipeline, identify(pipeline), Memory(), only=["model"])
    assert set(result.stages) == {"first", "model"}
    with pytest.raises(FoundryError, match="did you mean 'model'"):
        plan(pipeline, identify(pipeline), Memory(), only=["modle"])


@pytest.fixture
def drifting(monkeypatch):
    """Makes the code of the training kind another one; its declared version stays."""

    def drift():
        real = spec_module.stage_fingerprint

        def edited(stage, recipe, index):
            found = real(stage, recipe, index)
            if stage.kind != "train":
                return found
            functions = {**found.functions, "tests.kinds.train:Train.run": "edited"}
            return CodeFingerprint(digest="e" * 64, functions=functions)

        monkeypatch.setattr(spec_module, "stage_fingerprint", edited)

    return drift


def test_code_that_drifts_under_a_declared_version_is_shown_and_reused(drifting):
    base = identify(words())
    catalog = Memory().build(base)
    drifting()
    specs = identify(words())
    result = plan(words(), specs, catalog, baseline=baseline_of(base))
    model = result.stages["model"]
    assert (model.action, model.drift) == ("reuse", ("tests.kinds.train:Train.run",))
    assert all(row.drift == () for name, row in result.stages.items() if name != "model")
    unknown = plan(words(), specs, catalog)
    assert unknown.stages["model"].drift == (), "nothing to compare with"


def test_strict_code_lets_the_code_itself_decide(drifting):
    declared, strict = identify(words()), identify(words(), strict_code=True)
    assert declared["model"].code == "version:tests.kinds.train:1"
    assert strict["model"].code == f"fingerprint:{declared['model'].code_fingerprint}"
    assert strict["model"].key != declared["model"].key
    assert strict["first"] == declared["first"]
    catalog = Memory().build(strict)
    drifting()
    again = identify(words(), strict_code=True)
    model = plan(words(), again, catalog, baseline=baseline_of(strict)).stages["model"]
    assert (model.action, model.drift) == ("run", ())
    assert [reason.category for reason in model.reasons] == ["CODE"]
    assert "Train.run" in model.reasons[0].sentence()


def test_a_request_for_strict_code_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    for strict in (False, True):
        found = prepare(Request(pipeline=str(WORDS), strict_code=strict)).specs["model"].code
        assert found.startswith("fingerprint:") == strict
