// The stages: what each is at. A row stays the same element, so that nothing jumps under a cursor.
const {el} = foundry;
const WORDS = {waits: "waits", runs: "runs", reused: "reused", done: "done", failed: "failed",
  cancelled: "cancelled", blocked: "not reached", stopped: "stopped early", gone: "its process is gone"};
const rows = new Map();
const states = new Map();

function row(stage) {
  const parts = {
    state: el("span", {class: "state"}),
    name: el("a", {class: "name", "data-key": "stage " + stage.name}),
    kind: el("span", {class: "soft"}),
    time: el("span", {class: "time soft"}),
    bar: el("div", {class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100",
      "aria-label": stage.name}, el("i")),
    numbers: el("p", {class: "numbers"}),
    text: el("p", {class: "why"}),
  };
  const item = el("li", {}, parts.state, el("div", {class: "what"},
    el("div", {class: "head"}, parts.name, parts.kind, parts.time),
    parts.bar, parts.numbers, parts.text));
  return {item, parts};
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
}

function numbers(progress) {
  const parts = [];
  if (progress.total) parts.push(`${foundry.number(progress.done ?? 0)} of ${foundry.number(progress.total)}`);
  if (progress.left) parts.push(`${foundry.duration(progress.left)} left`);
  for (const [name, value] of Object.entries(progress.values)) parts.push(`${name} ${foundry.number(value)}`);
  return parts.join("  ·  ");
}

function update({item, parts}, stage) {
  const progress = stage.progress;
  item.className = "stage s-" + stage.state;
  put(parts.state, WORDS[stage.state] || stage.state);
  put(parts.name, stage.name);
  parts.name.href = "#artifact/" + stage.key;
  put(parts.kind, [stage.kind === stage.name ? "" : stage.kind, foundry.short(stage.key)].filter(Boolean).join(" "));
  const since = progress && progress.since && !progress.total ? "" : foundry.duration(stage.seconds);
  put(parts.time, since);
  const share = progress && progress.total ? Math.max(0, Math.min(1, (progress.done || 0) / progress.total)) : null;
  parts.bar.hidden = share === null;
  if (share !== null) {
    parts.bar.setAttribute("aria-valuenow", Math.round(100 * share));
    parts.bar.setAttribute("aria-valuetext", numbers(progress));
    parts.bar.firstChild.style.width = `${100 * share}%`;
  }
  put(parts.numbers, progress ? numbers(progress) : "");
  const attempts = stage.attempts > 1 ? `attempt ${stage.attempts}` : "";
  const message = progress && progress.message !== "training" ? progress.message : "";
  const why = stage.why.join("; ");
  const ran = stage.state === "done" && why ? "ran because: " + why : why;
  put(parts.text, [stage.error, message, ran, attempts].filter(Boolean).join("  ·  "));
}

foundry.drawStages = stages => {
  const list = foundry.by("stages");
  const order = stages.map(stage => {
    if (!rows.has(stage.name)) rows.set(stage.name, row(stage));
    update(rows.get(stage.name), stage);
    return rows.get(stage.name).item;
  });
  if (order.some((item, at) => list.children[at] !== item) || list.children.length !== order.length) {
    list.replaceChildren(...order);
  }
  const heard = stages.filter(stage => states.has(stage.name) && states.get(stage.name) !== stage.state);
  if (heard.length) foundry.say(heard.map(one => `${one.name}: ${WORDS[one.state] || one.state}`).join(", "));
  for (const stage of stages) states.set(stage.name, stage.state);
};

foundry.drawPlan = stages => {
  const body = stages.map(stage => [stage.name, stage.kind || "", foundry.short(stage.key),
    stage.planned || "", stage.plan.join("; ")]);
  foundry.redraw(foundry.by("plan"),
    foundry.table("The plan as it was", ["stage", "kind", "key", "action", "why"], body));
};
