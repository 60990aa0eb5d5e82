"""A policy's model card: what it sees, what it was made from, what was shown of it and what not."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import PolicyContract
from foundry_core.evaluation.score import Score, total
from foundry_core.release.ancestry import Played
from foundry_core.release.licences import UNKNOWN, licence_of
from foundry_core.store.manifest import Artifact

_DIGITS = 12
# Kinds that read several sources number them.
_NUMBERED = re.compile(r"^\d+ ")
_MANY_CONTROLS = 12


def model_card(
    name: str,
    contract: PolicyContract,
    lineage: Sequence[Artifact],
    played: Sequence[Played],
    *,
    lost: Sequence[str] = (),
    licence: str = "other",
    licences: Mapping[str, str] = {},
) -> str:
    """Markdown with the hub's front matter. lineage: the policy and what it was made from; empty of
    a folder that no store knows. lost: what of it the store no longer has."""
    parts = [
        _front_matter(licence),
        f"# {name}",
        _summary(contract),
        "## Use",
        _use(name),
        "## What it sees and commands",
        _contract(contract),
        "## How it was made",
        *_made(lineage, lost),
        "## Data",
        _data(lineage, licences),
        "## What was shown",
        *_shown(played),
        "## What was not shown",
        _bullets(_not_shown(lineage, played, lost, licences)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(licence: str) -> str:
    lines = ["library_name: foundry", "pipeline_tag: robotics", f"license: {licence}"]
    return "\n".join(["---", *lines, "tags: [foundry, robotics, vla]", "---"])


def _summary(contract: PolicyContract) -> str:
    cameras = ", ".join(contract.cameras) or "none"
    return (
        f"A policy for {contract.hz:g} Hz control. It looks through these cameras: {cameras}. It "
        f"predicts {contract.ahead} steps and carries out {contract.execute_steps} before it looks "
        "again. The folder holds weights (safetensors), normaliser, tokenizer and the contract of "
        "its inputs; no code is run to load it, and no pickle is read."
    )


def _use(name: str) -> str:
    return (
        "```console\n"
        f"foundry policy serve {name} --openpi 8000     # or --vla-eval, --lbm\n"
        f"foundry eval run {name} --benchmark BENCHMARK\n"
        "```\n\n"
        "```python\n"
        "from foundry_core.serving.policy import load_policy\n\n"
        f'policy = load_policy("{name}")\n'
        'policy.reset("me", seed=0)\n'
        'observation = {"images": {...}, "lowdim": {...}, "instruction": "..."}\n'
        '(targets,) = policy.infer([("me", observation)])\n'
        "```"
    )


def _contract(contract: PolicyContract) -> str:
    rows = [
        [f"camera `{name}`", f"uint8 {one.drawn or one.size or 'of any size'}", one.renderer]
        for name, one in contract.cameras.items()
    ]
    rows += [[f"observes `{n}`", _field(f), ""] for n, f in contract.observes.items()]
    rows += [[f"commands `{n}`", _field(f), "absolute"] for n, f in contract.commands.items()]
    return _table(["what", "form", ""], rows)


def _field(field: FieldContract) -> str:
    size = f"{field.dims} × " if field.dims else ""
    return f"{size}{field.text()}"


def _made(lineage: Sequence[Artifact], lost: Sequence[str]) -> list[str]:
    if not lineage:
        return ["Not known: the folder was exported without a store that has its lineage."]
    policy = lineage[0]
    training = policy.recipe.get("training") or {}
    lines = [
        f"Artifact `{policy.kind}/{policy.key}`, content `sha256:{policy.content}`, made on "
        f"{policy.created[:10]} in {policy.seconds:.0f} s of run `{policy.run_id}`.",
        f"One training run, seed {policy.seed}"
        + (f", {training['steps']} steps." if training.get("steps") else "."),
        f"Code: {_commit(policy.provenance)}. {_machine(policy.provenance)}",
        "Recipes, seeds, digests and sources of all stages: `lineage.json`.",
    ]
    rows = [
        [one.kind, f"`{one.key[:_DIGITS]}`", str(one.seed), _commit(one.provenance)]
        for one in lineage
    ]
    rows += [[one.partition("/")[0], f"`{one.partition('/')[2]}`", "", "gone"] for one in lost]
    return [_bullets(lines), _table(["stage", "key", "seed", "commit"], rows)]


def _commit(provenance: Mapping[str, Any]) -> str:
    git = provenance.get("git") or {}
    if not git.get("commit"):
        return "commit not known"
    return f"`{git['commit'][:_DIGITS]}`" + (
        " with uncommitted changes" if git.get("dirty") else ""
    )


def _machine(provenance: Mapping[str, Any]) -> str:
    hardware = provenance.get("hardware") or {}
    gpus = [str(one.get("name")) for one in hardware.get("gpus", ())]
    torch = (provenance.get("packages") or {}).get("torch")
    where = ", ".join(gpus) or hardware.get("cpu") or ""
    return "; ".join(part for part in (where, f"torch {torch}" if torch else "") if part)


def _sources(lineage: Sequence[Artifact]) -> list[tuple[str, str, str]]:
    """(kind, source, digest), each source of a kind once."""
    found = {
        (one.kind, _NUMBERED.sub("", source)): digest
        for one in lineage
        for source, digest in one.sources.items()
        if not source.startswith("benchmark:")
    }
    return [(kind, source, digest) for (kind, source), digest in sorted(found.items())]


def _data(lineage: Sequence[Artifact], licences: Mapping[str, str]) -> str:
    rows = [
        [kind, source, f"`{digest[:_DIGITS]}`", licence_of(source, licences)]
        for kind, source, digest in _sources(lineage)
    ]
    if not rows:
        return "Sources are not known."
    return _table(["read by", "source", "content", "licence"], rows)


def _shown(played: Sequence[Played]) -> list[str]:
    own = [one for one in played if one.own]
    others = [one for one in played if not one.own]
    if not own:
        return ["No evaluation of it is known."]
    parts = [
        "Successes of episodes with the exact (Clopper-Pearson) 95 % interval of the rate. A crash "
        "is a fault of simulator or machine and no outcome."
    ]
    for one in own:
        parts += [f"### {_plain(str(one.facts.benchmark))}", _plain(_asked(one)), _scores(one)]
    if others:
        rows = [
            [_player(one), *_cells(total(one.evaluation.scores.values()))]
            for one in others[:_MANY_CONTROLS]
        ]
        left = len(others) - len(rows)
        parts += [
            "### Played beside it, on the same scenarios",
            _table(["what", "successes", "rate", "95 %", "crashed"], rows),
            f"{left} more are not listed." if left > 0 else "",
        ]
    return parts


def _asked(one: Played) -> str:
    facts = one.facts
    packages = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
    said = [
        facts.criterion or one.evaluation.criterion,
        f"scenarios from {facts.first_scenario} on" if facts.first_scenario is not None else "",
        f"{facts.execute_steps} steps carried out per plan" if facts.execute_steps else "",
        f"policy's noise of seed {facts.seed}" if facts.seed is not None else "",
        packages,
    ]
    return "; ".join(part for part in said if part) + f". Stage `{one.stage}` of run `{one.run}`."


def _scores(one: Played) -> str:
    scores = one.evaluation.scores
    rows = [[task, *_cells(score)] for task, score in sorted(scores.items())]
    if len(rows) > 1:
        rows.append(["all", *_cells(total(scores.values()))])
    return _table(["task", "successes", "rate", "95 %", "crashed"], rows)


def _cells(score: Score) -> list[str]:
    low, high = score.interval
    rate = "" if score.rate is None else f"{score.rate:.1%}"
    interval = f"{low:.1%} to {high:.1%}" if score.n else ""
    return [f"{score.successes}/{score.n}", rate, interval, str(score.crashed)]


def _player(one: Played) -> str:
    if one.facts.control:
        return f"control `{one.facts.control}`, which learned nothing"
    grey = " (saw grey pictures)" if one.facts.blank_images else ""
    return f"`{one.stage}`{grey}"


def _not_shown(
    lineage: Sequence[Artifact],
    played: Sequence[Played],
    lost: Sequence[str],
    licences: Mapping[str, str],
) -> Iterable[str]:
    own, others = [p for p in played if p.own], [p for p in played if not p.own]
    if not own:
        yield "That it solves anything: it was not evaluated."
    else:
        yield "Anything on a robot: all episodes are simulated."
        yield "Other tasks, scenes, words or cameras than those named above."
    if own and not any(one.facts.control for one in others):
        yield "That the exam needs a policy: no control that learned nothing played it."
    if own and not any(one.facts.blank_images for one in others):
        yield "That it uses what it sees: no copy of it played with grey pictures."
    if any(total(one.evaluation.scores.values()).crashed for one in own):
        yield "What it does where the simulator crashed: those episodes are left out of the rates."
    if any(total(one.evaluation.scores.values()).pending for one in own):
        yield "The end of an evaluation: some of its episodes were not played."
    if lineage:
        yield "That the recipe is good: one training seed stands behind this policy."
    if lost:
        yield f"Where {', '.join(lost)} came from: the store no longer has it."
    unknown = [
        source for _, source, _ in _sources(lineage) if licence_of(source, licences) == UNKNOWN
    ]
    if unknown:
        yield f"Under which licence these may be used: {', '.join(sorted(set(unknown)))}."
    yield "That it is safe near people: nothing here measures that."


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """In one line and without tags: what an evaluation or a recipe calls itself writes no heading
    and no page of its own."""
    return " ".join(str(text).split()).replace("<", "&lt;")
