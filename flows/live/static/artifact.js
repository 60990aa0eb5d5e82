// One artifact, opened by the address behind #: what it is, came from, and is used by.
const {el, titled, keyLink} = foundry;
let shown = "";

const runLink = run => el("a", {href: foundry.runLink(run), "data-key": "run " + run}, run);
const text = value => value === null || value === undefined ? "" : typeof value === "number" ? foundry.number(value) : String(value);

// JSON has its names in the order of letters.
const COLUMNS = {
  inputs: ["upstream_key", "slot", "label", "kind"], used_by: ["key", "kind", "present"],
  scores: ["task", "successes", "n", "success_rate", "low", "high"],
  attempts: ["run_id", "attempt", "state", "started_at", "seconds", "host", "error"],
  file_list: ["path", "size", "role"], aliases: ["alias"],
};
const TITLES = {inputs: "Inputs", used_by: "Used by", scores: "Scores", attempts: "Attempts", file_list: "Files",
  aliases: "Names"};

function cells(name, row) {
  return COLUMNS[name].map(column => {
    const value = row[column];
    if (column === "upstream_key" || column === "key") return keyLink(value);
    if (column === "run_id" && value) return runLink(value);
    if (column === "present") return value ? "there" : "gone";
    if (column === "size") return foundry.bytes(value);
    if (column === "started_at") return foundry.moment(value);
    return text(value);
  });
}

function lists(found) {
  return Object.entries(TITLES).filter(([name]) => found.lists[name].length).map(([name, title]) => {
    const rows = found.lists[name], more = found.counts[name] - rows.length;
    const header = COLUMNS[name].map(one => one === "upstream_key" ? "key" : one.replace("_id", "").replace("_", " "));
    return titled(title, header, rows.map(row => cells(name, row)), more > 0 ? [`and ${more} more`] : []);
  });
}

function facts(found) {
  const one = found.facts;
  const said = [
    ["key", one.key], ["stages", found.stages.join(", ")],
    ["state", one.present ? "in the store" : one.content ? `gone${one.removed_reason ? `: ${one.removed_reason}` : ""}` : "never built"],
    ["content", one.content], ["seed", one.seed], ["code", one.code], ["built", foundry.moment(one.created_at)],
    ["took", foundry.duration(one.seconds)], ["size", one.bytes ? `${foundry.bytes(one.bytes)} in ${one.files} files` : ""],
    ["commit", one.git_commit ? one.git_commit.slice(0, 12) + (one.git_dirty ? " + changes" : "") : ""],
  ];
  const list = said.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]);
  if (one.linked_to) list.push(el("dt", {}, "same bytes as"), el("dd", {}, keyLink(one.linked_to)));
  if (one.run_id) list.push(el("dt", {}, "built by"), el("dd", {}, runLink(one.run_id)));
  return el("dl", {}, ...list);
}

function history(found) {
  const parts = [];
  if (found.previous) {
    const rows = found.changes.map(one => [one.place || "here", one.path, text(one.old), text(one.new)]);
    parts.push(el("h3", {}, "What differs from the one before, ", keyLink(found.previous)));
    parts.push(rows.length ? foundry.table("Differences", ["place", "path", "old", "new"], rows)
      : el("p", {class: "note"}, "Nothing in its recipe, seed or code."));
  }
  const rows = found.why.map(one => [runLink(one.run_id), one.stage, one.action, one.why.join("; ")]);
  if (rows.length) parts.push(titled("Runs that have it, and why", ["run", "stage", "action", "why"], rows));
  return parts;
}

function recipe(found) {
  const parts = [["Recipe", found.recipe], ["Metrics", found.metrics]].filter(([, rows]) => rows.length);
  return parts.map(([title, rows]) => el("details", {open: title === "Metrics"},
    el("summary", {}, title), foundry.table(title, ["setting", "value"], rows)));
}

function preview(found) {
  if (!found.previews) return [];
  let number = 0;
  const box = el("div", {});
  const look = el("button", {type: "button"}, "Look into it");
  look.addEventListener("click", async () => {
    look.disabled = true;
    box.replaceChildren(el("p", {class: "note"}, `sample ${number} is read …`));
    try {
      const sample = await foundry.ask(`preview/${found.kind}/${found.facts.key}/${number}`);
      box.replaceChildren(...looked(sample));
      number = (number + 1) % sample.samples;
      look.textContent = `Look at sample ${number}`;
    } catch (error) {
      box.replaceChildren(el("p", {class: "note"}, error.message));
    }
    look.disabled = false;
  });
  return [el("h3", {}, "Data"), look, box];
}

function looked(sample) {
  const about = Object.entries(sample.dataset).slice(0, 20).map(([name, value]) => [name, JSON.stringify(value).slice(0, 300)]);
  const members = Object.entries(sample.sample.members).slice(0, 40)
    .map(([name, one]) => [name, foundry.bytes(one.bytes), String(one.holds)]);
  const pictures = sample.pictures.map(one => el("figure", {},
    el("img", {alt: one.name, src: "data:image/png;base64," + one.png}), el("figcaption", {}, one.name)));
  return [
    el("p", {class: "note"}, `${sample.modality}: ${foundry.number(sample.samples)} samples in ${sample.shards} shards, ${foundry.bytes(sample.bytes)}`),
    pictures.length ? el("div", {class: "pictures"}, ...pictures) : "",
    sample.text ? el("pre", {tabindex: "0"}, sample.text) : "",
    titled(`Sample ${sample.sample.number}: ${sample.sample.key}`, ["member", "size", "holds"], members),
    about.length ? titled("Data set", ["field", "value"], about) : "",
  ];
}

async function open(key) {
  const part = foundry.by("artifact");
  shown = key;
  part.hidden = false;
  part.replaceChildren(el("h2", {tabindex: "-1"}, "Artifact"), el("p", {class: "note"}, "is looked up …"));
  part.firstChild.focus();
  try {
    const found = await foundry.ask("artifact/" + key);
    if (shown !== key) return;
    const title = `${found.stages[0] || found.kind || "artifact"} ${foundry.short(key)}`;
    const close = el("a", {href: "#lineage", class: "close"}, "close");
    const ancestry = el("div", {class: "wide", tabindex: "0", role: "region", "aria-label": "What it was made from"});
    part.replaceChildren(el("h2", {tabindex: "-1"}, title, " ", el("span", {class: "soft"}, found.kind || ""), " ", close),
      facts(found), ...history(found), ...lists(found), ...recipe(found), ...preview(found),
      el("h3", {}, "What it was made from"), ancestry);
    part.firstChild.focus();
    try {
      foundry.drawGraph(ancestry, await foundry.ask("ancestry/" + key), "What it was made from");
    } catch (error) {
      ancestry.replaceChildren(el("p", {class: "note"}, error.message));
    }
  } catch (error) {
    if (shown === key) part.replaceChildren(el("h2", {tabindex: "-1"}, "Artifact"), el("p", {class: "note"}, error.message));
  }
}

foundry.followHash = () => {
  const follow = () => {
    const [, key] = location.hash.match(/^#artifact\/([0-9a-f]{64})$/) || [];
    if (key) open(key);
    else if (["", "#lineage"].includes(location.hash)) foundry.by("artifact").hidden = true;
  };
  addEventListener("hashchange", follow);
  follow();
};
