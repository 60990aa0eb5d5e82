// The page of one run.
const {el} = foundry;
const run = location.pathname.split("/")[2];
const name = decodeURIComponent(run);
let before = "";

function facts(found) {
  const one = found.run;
  const parts = [el("span", {class: `status s-${one.gone ? "gone" : one.status}`}, one.gone ? "gone" : one.status),
    ` ${name}`];
  if (one.started_at) parts.push(` · ${foundry.moment(one.started_at)}`);
  if (one.seconds) parts.push(` · ${foundry.duration(one.seconds)}`);
  if (one.host) parts.push(` · on ${one.host}`);
  if (one.git_commit) parts.push(` · ${one.git_commit.slice(0, 12)}${one.git_dirty ? " + changes" : ""}`);
  if (one.parent) parts.push(" · part of ", el("a", {href: foundry.runLink(one.parent), "data-key": "parent"}, one.parent));
  if (one.report) parts.push(" · ", el("a", {href: "/foundry-report/" + run, "data-key": "report"}, "report"));
  return parts;
}

function notes(found) {
  const one = found.run, said = [];
  if (one.gone) said.push("The process of this run is gone and said nothing of its end: `foundry reap` closes it, and the same request, run again, takes up what it left.");
  if (one.error) said.push(one.error);
  const changes = (one.overrides || []).map(([path, value]) => `${path}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  if (changes.length) said.push(`with ${changes.join(", ")}`);
  const compute = found.compute;
  if (compute && compute.reused) said.push(`${compute.reused} stages reused, which took ${foundry.duration(compute.saved_seconds)} when they were built`);
  return said.map(text => el("p", {class: "note"}, text));
}

foundry.followHash();
foundry.searchArtifacts(foundry.by("words"), foundry.by("results"));
const parts = [foundry.watchCurves(run), foundry.watchVerdict(run), foundry.watchRollouts(run), foundry.watchGraph(run)];
foundry.watch(() => "run/" + run, found => {
  const one = found.run;
  const title = `${one.pipeline}${one.variant ? ` ${one.variant}` : ""}`;
  document.title = `${one.gone ? "gone" : one.status}: ${title}`;
  foundry.by("title").textContent = title;
  foundry.redraw(foundry.by("facts"), ...facts(found));
  foundry.redraw(foundry.by("notes"), ...notes(found));
  foundry.pace.running = one.status === "running" && !one.gone;
  foundry.drawStages(found.stages);
  foundry.colourGraph(found.stages);
  const plan = JSON.stringify(found.stages.map(stage => [stage.name, stage.key, stage.planned, stage.plan]));
  if (plan !== before.plan) foundry.drawPlan(found.stages);
  // What a stage's end brought is due now.
  const ended = JSON.stringify([one.status, found.stages.map(stage => stage.state)]);
  if (before && ended !== before.ended) for (const ask of parts) ask();
  if (before && one.status !== before.status) foundry.say(`The run ${one.status}`);
  before = {plan, ended, status: one.status};
  return foundry.pace.while(1.5, 10);
});
