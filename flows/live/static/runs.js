// The list of runs.
const {el} = foundry;
const words = foundry.by("words");

function scores(row) {
  return Object.entries(row.scores || {}).filter(([, one]) => one.success_rate !== null).slice(0, 6)
    .map(([stage, one]) => `${stage} ${(100 * one.success_rate).toFixed(0)} % of ${one.n}`).join(", ");
}

function item(row) {
  const status = row.gone ? "gone" : row.status;
  const counts = [row.ran ? `${row.ran} run` : "", row.reused ? `${row.reused} reused` : "", row.failed ? `${row.failed} failed` : ""];
  const found = row.verdict || scores(row) || (row.status === "failed" ? row.error : "");
  return el("li", {class: `stage s-${status}`}, el("span", {class: "state"}, status), el("div", {class: "what"},
    el("div", {class: "head"}, el("a", {class: "name", href: foundry.runLink(row.run_id), "data-key": row.run_id}, row.pipeline),
      el("span", {class: "soft"}, row.variant || (row.ablation_id ? "ablation" : "")),
      el("span", {class: "time soft"}, [foundry.moment(row.started_at), foundry.duration(row.seconds)].filter(Boolean).join(" · "))),
    found ? el("p", {}, found) : null,
    el("p", {class: "why"}, [row.run_id, ...counts, ...(row.overrides || []).map(([path, value]) => `${path}=${value}`)].filter(Boolean).join("  ·  "))));
}

const ask = foundry.watch(() => "runs?words=" + encodeURIComponent(words.value.trim()), found => {
  foundry.redraw(foundry.by("runs"), ...found.runs.map(item));
  const none = words.value.trim() ? "No run fits." : "Nothing has run here yet: foundry run demo-fast";
  foundry.by("note").textContent = found.more ? "The newest 100; search for others." : found.runs.length ? "" : none;
  return found.runs.some(row => row.status === "running" && !row.gone) ? 2 : 5;
});
let timer = 0;
words.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 250); });
words.form.addEventListener("submit", event => { event.preventDefault(); ask(); });
