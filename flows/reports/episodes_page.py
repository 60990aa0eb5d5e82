"""episodes.html of a run: the videos of its evaluations, failures first, in a grid that can be
filtered, or the policies side by side on each scenario. The videos lie beside it, in `episodes`."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from flows.reports.rerun_file import rate_of, write_rerun
from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.report import page_style
from foundry_core.files import write_atomic
from foundry_core.home import home_dir, store_uri
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.store.open import open_store
from foundry_core.store.run_records import load_run

VIDEO = re.compile(r"records/videos/([^/]+)/(\d+)_(success|failure)\.(mp4|webp)")
_FAILED = "failure"
_FOLDER = "episodes"
_KEY_DIGITS = 12
PAGE = "episodes.html"


@dataclass(frozen=True, kw_only=True, order=True)
class Recorded:
    """A video of an evaluation. file: below the page's folder."""

    outcome: str
    task: str
    scenario: int
    stage: str
    file: str


def write_episodes_page(run_id: str, tasks: Iterable[str] = ()) -> Path:
    """Copies the videos of a run's evaluations beside its report and writes the page. tasks: only
    these. FoundryError for an unknown run, and where nothing was recorded."""
    store = open_store(store_uri())
    folder = home_dir() / "runs" / run_id
    found = _recorded(store, evaluations_of(store, run_id), folder, frozenset(tasks))
    if not found:
        raise FoundryError(
            f"run {run_id} has no videos{' of these tasks' if tasks else ''}",
            "record_per_task and record_failures of `evaluate` say which episodes keep one",
        )
    write_atomic(folder / PAGE, _page(run_id, found), durable=False)
    return folder / PAGE


def write_episode_rerun(
    run_id: str, path: Path, *, tasks: Iterable[str] = (), stage: str = "", scenario: int | None
) -> str:
    """Writes a recorded episode of a run for rerun's viewer, of those chosen the page's first, a
    failure where there is one; returns what it is. FoundryError where there is none."""
    store = open_store(store_uri())
    evaluations = evaluations_of(store, run_id)
    folder = home_dir() / "runs" / run_id
    found = [
        one
        for one in _recorded(store, evaluations, folder, frozenset(tasks))
        if (not stage or one.stage == stage) and scenario in (None, one.scenario)
    ]
    found = [one for one in found if one.file.endswith(".mp4")]
    if not found:
        stages = ", ".join(sorted(evaluations)) or "none"
        raise FoundryError(
            f"run {run_id} has no video of such an episode",
            f"its evaluations are {stages}; record_per_task and record_failures say which keep one",
        )
    one = found[0]
    artifact = evaluations[one.stage]
    track = store.file_path(artifact, f"records/tracks/{one.task}/{Path(one.file).stem}.npz")
    facts = store.file_path(artifact, "evaluation.json")
    if track is None or facts is None:
        raise FoundryError(f"{one.stage} kept no numbers of {one.task}, scenario {one.scenario}")
    name = f"{run_id}/{one.stage}/{one.task}/{one.scenario} {one.outcome}"
    write_rerun(path, name=name, video=folder / one.file, track=track, hz=rate_of(facts))
    return name


def evaluations_of(store: Store, run_id: str) -> dict[str, Artifact]:
    """Stage → evaluation of a run, as far as they are still there."""
    stages = load_run(store.documents, run_id)["stages"]
    artifacts = {
        name: store.read(one["kind"], one["key"])
        for name, one in stages.items()
        if one["kind"] in ("evaluate", "evaluate_control")
    }
    return {name: artifact for name, artifact in artifacts.items() if artifact is not None}


def has_videos(artifacts: Mapping[str, Artifact]) -> bool:
    return any(VIDEO.fullmatch(file.path) for one in artifacts.values() for file in one.files)


def _recorded(
    store: Store, artifacts: Mapping[str, Artifact], folder: Path, tasks: frozenset[str]
) -> list[Recorded]:
    """Failures first, then by task and scenario."""
    found = []
    for stage, artifact in artifacts.items():
        for file in artifact.files:
            named = VIDEO.fullmatch(file.path)
            if named is None or (tasks and named[1] not in tasks):
                continue
            path = store.file_path(artifact, file.path)
            if path is None:
                continue
            # By key: what a run's record calls its stages comes from the store, and is no path.
            place = f"{_FOLDER}/{artifact.key[:_KEY_DIGITS]}/{named[1]}/{path.name}"
            if not (folder / place).is_file():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / place)
            found.append(
                Recorded(
                    outcome=named[3],
                    task=named[1],
                    scenario=int(named[2]),
                    stage=stage,
                    file=place,
                )
            )
    return sorted(found)


def _page(run_id: str, episodes: list[Recorded]) -> str:
    failed = sum(one.outcome == _FAILED for one in episodes)
    title = f"{len(episodes)} recorded episodes, {failed} of them failures"
    cards = "\n".join(_card(one) for one in episodes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{page_style()}{_STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p class=run>run {escape(run_id)}. What was recorded is chosen: "
        "the share of failures here is no failure rate.</p>"
        f"{_controls(episodes)}<div class=episodes id=episodes>{cards}</div>"
        f"<p class=note id=none hidden>No episode is left.</p></main><script>{_SCRIPT}</script>"
        "</body></html>\n"
    )


def _controls(episodes: list[Recorded]) -> str:
    choices = {
        "task": sorted({one.task for one in episodes}),
        "stage": sorted({one.stage for one in episodes}),
        "outcome": sorted({one.outcome for one in episodes}),
    }
    selects = "".join(
        f"<label>{name}<select id={name}><option value=''>all</option>"
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select></label>"
        for name, values in choices.items()
    )
    order = (
        "<label>order<select id=order><option value=failures>failures first</option>"
        "<option value=scenario>side by side</option></select></label>"
    )
    return f"<div class=controls>{selects}{order}</div>"


def _card(one: Recorded) -> str:
    data = json.dumps([one.task, one.scenario, one.stage])
    source = escape(one.file, quote=True)
    shown = (
        f'<video data-src="{source}" muted loop playsinline controls preload="none"></video>'
        if one.file.endswith(".mp4")
        else f'<img loading="lazy" alt="" src="{source}">'
    )
    return (
        f'<figure class="{one.outcome}" data-task="{escape(one.task, quote=True)}" '
        f'data-stage="{escape(one.stage, quote=True)}" data-outcome="{one.outcome}" '
        f'data-key="{escape(data, quote=True)}">{shown}<figcaption>'
        f"<b>{one.outcome}</b> {escape(one.task)}, scenario {one.scenario}<br>"
        f"{escape(one.stage)}</figcaption></figure>"
    )


_STYLE = """
main{max-width:90rem}
.controls{display:flex;flex-wrap:wrap;gap:.6rem 1.2rem;margin:1.2rem 0;position:sticky;top:0;
background:var(--paper);padding:.5rem 0;z-index:1}
.controls label{display:flex;gap:.4rem;align-items:center;color:var(--soft);font-size:.875rem}
.controls select{font:inherit;color:var(--ink);background:var(--tint);border:1px solid var(--line);
border-radius:4px;padding:.2rem .3rem;max-width:15rem}
.episodes{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(13rem,45%),1fr));gap:.9rem}
.episodes figure{margin:0;border-top:4px solid #2f855a}.episodes .failure{border-color:#c53030}
.episodes video,.episodes img{width:100%;aspect-ratio:4/3;object-fit:contain;background:#000;
border-radius:0 0 4px 4px;display:block}
figcaption{overflow-wrap:anywhere;padding-top:.25rem}
""".strip()
_SCRIPT = """
const box=document.getElementById('episodes'),cards=[...box.children];
const by=id=>document.getElementById(id);
const seen=new IntersectionObserver(all=>{for(const one of all){const v=one.target;
if(one.isIntersecting){if(!v.src)v.src=v.dataset.src;v.play().catch(()=>{})}else v.pause()}},
{rootMargin:'200px'});
cards.forEach((c,i)=>{c.place=i;const v=c.querySelector('video');if(v)seen.observe(v)});
const key=c=>JSON.parse(c.dataset.key);
function compare(a,b){const x=key(a),y=key(b);
return x[0].localeCompare(y[0])||x[1]-y[1]||x[2].localeCompare(y[2])}
function show(){let left=0;for(const c of cards){
c.hidden=['task','stage','outcome'].some(n=>by(n).value&&c.dataset[n]!==by(n).value);
left+=!c.hidden}
by('none').hidden=left>0;
const sorted=[...cards].sort(by('order').value==='scenario'?compare:(a,b)=>a.place-b.place);
box.append(...sorted)}
for(const n of['task','stage','outcome','order'])by(n).addEventListener('change',show);
show();
""".strip()
