"""What is known of past ablations: a list, one in full, two beside each other. Plain data that JSON
can hold, from the lineage index and the verdicts' files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import duckdb

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.result import FILE, Comparison, as_json, read_comparison
from foundry_core.evaluation.comparison.sentences import verdict
from foundry_core.lineage import queries
from foundry_core.lineage.connection import rows
from foundry_core.store.base import Store

Json = dict[str, Any]
_NO_VERDICT = "no verdict"
_Z95 = 1.959964
_LIST = """
select a.ablation_id, a.base_pipeline, a.question, a.status, a.started_at, a.seeds, a.vary,
    a.comparison_key,
    (select count(*) from fact.variant v where v.ablation_id = a.ablation_id) as variants,
    c.spent_seconds, c.spent_gpu_seconds, c.saved_seconds, c.reused
from ablation a left join compute_spent_saved c on c.run_id = a.ablation_id
order by a.started_at desc, a.ablation_id
"""
_PACKAGES = """
select distinct p.name, p.version
from run_artifact r
    join attempt t on t.key = r.key and t.attempt = r.attempt and t.run_id = r.built_by
    join package p on p.digest = t.packages_digest
where r.run_id = ? order by all
"""
_MACHINES = """
select distinct t.host, t.python, t.git_commit, t.git_dirty, t.diff_digest,
    t.hardware::varchar as hardware
from run_artifact r
    join attempt t on t.key = r.key and t.attempt = r.attempt and t.run_id = r.built_by
where r.run_id = ? order by all
"""


def listed(connection: duckdb.DuckDBPyConnection) -> list[Json]:
    """Every ablation, newest first: what it asks, when, how large, how it ended, what it cost."""
    decided: dict[str, Counter[str]] = {}
    effects = rows(
        connection, "select distinct ablation_id, variant, decision from fact.effect", [], of=Json
    )
    for row in effects:
        if row["decision"] != "the base":
            decided.setdefault(row["ablation_id"], Counter())[_short(row["decision"])] += 1
    found = rows(connection, _LIST, [], of=Json)
    for row in found:
        row["asks"] = row["question"] or _varied(row["vary"])
        counts = decided.get(row["ablation_id"], Counter())
        row["verdict"] = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    return list(found)


def _short(decision: str) -> str:
    """'worse than the base (these policies)' → 'worse'"""
    for word in ("not separated", _NO_VERDICT, "better", "worse"):
        if decision.startswith(word):
            return word
    return decision


def _varied(vary: Any) -> str:
    """What was varied, where nobody wrote a question down."""
    axes = vary.items() if isinstance(vary, Mapping) else ()
    return "; ".join(f"{path} = {', '.join(map(str, values))}" for path, values in axes) or "-"


def find(connection: duckdb.DuckDBPyConnection, ref: str) -> str:
    """An ablation by its id, a part of it that no other has, or `latest`."""
    known = [row["ablation_id"] for row in listed(connection)]
    if ref in known:
        return ref
    found = known[:1] if ref == "latest" else [name for name in known if ref in name]
    if len(found) == 1:
        return found[0]
    if not found:
        raise FoundryError(f"{ref!r} is not an ablation", "`foundry ablation ls` lists them")
    raise FoundryError(f"{len(found)} ablations have {ref!r} in their id", ", ".join(found[:4]))


def shown(connection: duckdb.DuckDBPyConnection, store: Store, ref: str) -> Json:
    """All of one: what changed, success by seed, the verdict in words, effects, measures of every
    stage, cost, the command and the environment to repeat it."""
    name = find(connection, ref)
    (head,) = [row for row in listed(connection) if row["ablation_id"] == name]
    run = rows(connection, "from pipeline_run where run_id = ?", [name], of=Json)
    effects = queries.ablation_effects(connection, name)
    judged = comparison(connection, store, name)
    quality = "from ablation_quality where ablation_id = ? order by variant, position"
    return {
        **head,
        "effects": effects,
        "rates": {name: dict(one.seeds) for name, one in judged.overall.items()} if judged else {},
        "verdict_text": verdict(judged) if judged else "",
        "missing": missing(effects),
        "contrasts": as_json(judged.contrasts) if judged else [],
        "doses": as_json(judged.doses) if judged else [],
        "quality": list(rows(connection, quality, [name], of=Json)),
        "command": run[0]["argv"] if run else None,
        "environment": environment(connection, name),
    }


def comparison(
    connection: duckdb.DuckDBPyConnection, store: Store, ablation_id: str
) -> Comparison | None:
    """The verdict's; None where there is none, or its file is gone."""
    key = queries.ablation(connection, ablation_id)["comparison_key"]
    artifact = store.read("verdict", key) if key else None
    path = store.file_path(artifact, FILE) if artifact else None
    return read_comparison(path) if path else None


def missing(effects: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for every variant that has no verdict: why, and that it still counts."""
    reasons = {
        one["variant"]: one["decision"]
        for one in effects
        if str(one["decision"]).startswith(_NO_VERDICT)
    }
    return [
        f"“{name}” has {reason}. It still counts in the correction of the others."
        for name, reason in reasons.items()
    ]


def environment(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> Json:
    """Of the attempts that built what the ablation is made from: packages (name → versions),
    machines, commits of the code."""
    packages: dict[str, list[str]] = {}
    for row in rows(connection, _PACKAGES, [ablation_id], of=Json):
        packages.setdefault(row["name"], []).append(row["version"])
    machines = rows(connection, _MACHINES, [ablation_id], of=Json)

    def every(name: str) -> list[str]:
        return sorted({str(one[name]) for one in machines if one[name] is not None})

    commits = {
        f"{one['git_commit'] or 'no git'}{' + changes' if one['git_dirty'] else ''}"
        for one in machines
    }
    return {
        "code": sorted(commits),
        "hosts": every("host"),
        "python": every("python"),
        "hardware": every("hardware"),
        "packages": packages,
    }


def compared(connection: duckdb.DuckDBPyConnection, store: Store, a: str, b: str) -> Json:
    """Two ablations side by side: success of the variants that set the same values, then what
    differs in the base's settings, in code and environment. Shown and not tested: each was
    judged by itself, and the scenarios may be the same."""
    one, other = shown(connection, store, a), shown(connection, store, b)
    sides = [_sides(found) for found in (one, other)]
    pairs = [
        {
            "change": change,
            "a": sides[0].get(change),
            "b": sides[1].get(change),
            **_difference(sides[0].get(change), sides[1].get(change)),
        }
        for change in dict.fromkeys([*sides[0], *sides[1]])
    ]
    bases = [_base_run(connection, found["ablation_id"]) for found in (one, other)]
    known = all(bases)
    return {
        "a": one,
        "b": other,
        "variants": pairs,
        "config": queries.diff(connection, bases[0], bases[1]) if known else [],
        "environment": _environment_changes(one["environment"], other["environment"]),
    }


def _sides(found: Mapping[str, Any]) -> dict[str, Json]:
    """What a variant sets → how it did; the base sets nothing."""
    sides: dict[str, Json] = {}
    changes: dict[str, list[str]] = {}
    for row in found["effects"]:
        if row["path"]:
            changes.setdefault(row["variant"], []).append(f"{row['path']} = {row['new']}")
    for row in found["effects"]:
        name = row["variant"]
        keys = ("variant", "success", "n", "low", "high", "p_value", "decision")
        sides["; ".join(sorted(changes.get(name, ()))) or "base"] = {
            **{key: row[key] for key in keys},
            "seeds": list(found["rates"].get(name, {}).values()),
        }
    return sides


def _difference(a: Json | None, b: Json | None) -> Json:
    """B's success less A's with an approximate 95 % interval, over runs where both have several."""
    none: Json = {"difference": None, "low": None, "high": None}
    if not a or not b or a["success"] is None or b["success"] is None:
        return none
    from foundry_core.evaluation.statistics.recipes import seed_test

    rates = [[rate for rate in side["seeds"] if rate is not None] for side in (b, a)]
    runs = seed_test(rates[0], rates[1], {"a": rates[1], "b": rates[0]}) if all(rates) else None
    spread = sum(side["success"] * (1 - side["success"]) / side["n"] for side in (a, b))
    width = max((runs and runs.half_width()) or 0.0, _Z95 * sqrt(spread))
    difference = b["success"] - a["success"]
    return {"difference": difference, "low": difference - width, "high": difference + width}


def _base_run(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> str:
    query = "select runs from ablation_variant where ablation_id = ? order by position limit 1"
    found = rows(connection, query, [ablation_id], of=Json)
    return str(found[0]["runs"][0]) if found and found[0]["runs"] else ""


def _environment_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Json]:
    """{what, a, b} of whatever differs."""
    found = [
        {"what": name, "a": a[name], "b": b[name]}
        for name in ("code", "hosts", "python", "hardware")
        if a[name] != b[name]
    ]
    one, other = a["packages"], b["packages"]
    differing = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    differing.sort(key=lambda name: (not (name in one and name in other), name))
    return found + [
        {"what": name, "a": one.get(name, []), "b": other.get(name, [])} for name in differing
    ]
