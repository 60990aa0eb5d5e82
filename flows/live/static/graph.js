// The lineage graph: a box is a link to its artifact.
const {el, svg} = foundry;
const LIVE = {waits: "blocked", runs: "runs", done: "run", reused: "reuse", failed: "failed", gone: "failed"};

foundry.drawGraph = (node, graph, label) => {
  const lines = graph.edges.map(edge => svg("path", {class: "fl-edge", d: edge.path},
    svg("title", {}, `${edge.source} → ${edge.target}${edge.label ? ` (${edge.label})` : ""}`)));
  const boxes = graph.nodes.map(one => {
    const texts = [
      svg("rect", {x: one.x, y: one.y, width: one.width, height: one.height, rx: 8}),
      svg("text", {x: one.x + 12, y: one.y + 23, class: "fl-name"}, one.title),
      svg("text", {x: one.x + 12, y: one.y + 41, class: "fl-sub"}, one.subtitle),
    ];
    return svg("a", {href: "#artifact/" + (one.key || ""), class: `fl-node fl-${one.action}`,
      "data-key": "node " + one.name, "data-name": one.name,
      "aria-label": `${one.name}, ${one.kind || "unknown"}`}, svg("title", {}, `${one.name}: ${one.action}`), ...texts);
  });
  const head = svg("defs", {}, svg("marker", {id: "fl-arrow", viewBox: "0 0 8 8", refX: 7, refY: 4,
    markerWidth: 7, markerHeight: 7, orient: "auto"}, svg("path", {d: "M0 0 8 4 0 8z", class: "fl-head"})));
  foundry.redraw(node, svg("svg", {viewBox: `0 0 ${graph.width} ${graph.height}`, width: graph.width,
    height: graph.height, class: "fl-graph", role: "group", "aria-label": label}, head, ...lines, ...boxes));
};

foundry.watchGraph = run => foundry.watch(() => `run/${run}/graph`, graph => {
  foundry.drawGraph(foundry.by("graph"), graph, "The stages of this run");
  foundry.colourGraph();
  return foundry.pace.while(6);
}, text => { foundry.by("graph-note").textContent = text; });

// By what the stages are at now.
let known = [];
foundry.colourGraph = (stages = known) => {
  known = stages;
  const states = new Map(stages.map(stage => [stage.name, LIVE[stage.state] || "blocked"]));
  for (const box of foundry.by("graph").querySelectorAll(".fl-node")) {
    const state = states.get(box.dataset.name);
    if (state) box.setAttribute("class", `fl-node fl-${state}`);
  }
};
