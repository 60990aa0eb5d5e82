// Curves of trainings: lines over steps.
const {el, svg} = foundry;
const WIDTH = 490, HEIGHT = 230, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 30, COLOURS = 9;

function ticks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map(one => one * power).find(one => span / one <= count) || 10 * power;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(at);
  return found;
}

function chart(curve) {
  const known = curve.series.map((one, number) => ({name: one.name, number,
    points: one.points.filter(p => typeof p[0] === "number" && typeof p[1] === "number")}));
  const series = known.filter(one => one.points.length);
  const xs = series.flatMap(one => one.points.map(p => p[0]));
  const ys = series.flatMap(one => one.points.map(p => p[1]));
  if (!xs.length) return null;
  const extent = values => values.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [Infinity, -Infinity]);
  const [x0, x1] = extent(xs);
  let [y0, y1] = extent(ys);
  if (y0 === y1) [y0, y1] = [y0 - (Math.abs(y0) || 1) / 2, y1 + (Math.abs(y1) || 1) / 2];
  const x = value => LEFT + (WIDTH - LEFT - RIGHT) * (x1 === x0 ? 0.5 : (value - x0) / (x1 - x0));
  const y = value => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - y0) / (y1 - y0);
  const parts = [];
  for (const at of ticks(y0, y1, 4)) {
    parts.push(svg("line", {class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(at), y2: y(at)}),
      svg("text", {class: "tick", x: LEFT - 8, y: y(at) + 4, "text-anchor": "end"}, foundry.number(at)));
  }
  for (const at of ticks(x0, x1, 5)) {
    parts.push(svg("text", {class: "tick", x: x(at), y: HEIGHT - 10, "text-anchor": "middle"}, foundry.number(at)));
  }
  for (const one of series) {
    const line = one.points.map(p => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ");
    const last = one.points[one.points.length - 1];
    parts.push(svg("polyline", {class: `line c${one.number % COLOURS}`, points: line}),
      svg("circle", {class: `dot c${one.number % COLOURS}`, cx: x(last[0]), cy: y(last[1]), r: 3}));
  }
  const newest = series.map(one => {
    const [step, value] = one.points[one.points.length - 1];
    return {text: `${one.name} ${foundry.number(value)}`, step, number: one.number};
  });
  const label = `${curve.title}: ${newest.map(one => `${one.text} at step ${foundry.number(one.step)}`).join(", ")}`;
  return el("figure", {class: "curve"},
    el("figcaption", {}, el("b", {}, curve.title), curve.live ? el("span", {class: "live"}, "live") : null,
      el("span", {class: "legend"}, ...newest.map(one => el("span", {class: `c${one.number % COLOURS}`}, one.text)))),
    svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label}, ...parts));
}

foundry.watchCurves = run => foundry.watch(() => `run/${run}/curves`, found => {
  const drawn = found.curves.map(chart).filter(Boolean);
  foundry.part("training", drawn.length);
  foundry.redraw(foundry.by("curves"), ...drawn);
  return foundry.pace.while(3);
}, () => {});
