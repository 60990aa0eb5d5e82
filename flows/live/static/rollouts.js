// Pictures and videos: fetched with the password when they come into view, shown from memory.
const {el} = foundry;
const loads = new WeakMap();
const cards = new Map();

const seen = new IntersectionObserver(all => {
  for (const one of all) {
    const load = loads.get(one.target);
    if (one.isIntersecting && load) {
      loads.delete(one.target);
      load();
    }
    if (!one.isIntersecting && one.target.pause) one.target.pause();
  }
}, {rootMargin: "200px"});

function later(node, path, failed) {
  loads.set(node, async () => {
    try {
      const answer = await foundry.fetch(path);
      if (!answer.ok) throw new Error((await answer.json()).error);
      node.src = URL.createObjectURL(await answer.blob());
      node.hidden = false;
    } catch (error) {
      failed(error.message);
    }
  });
  seen.observe(node);
  return node;
}

const place = path => path.split("/").map(encodeURIComponent).join("/");

foundry.picture = (path, alt) => {
  const image = el("img", {alt});
  return later(image, place(path), why => image.replaceWith(el("p", {class: "note"}, why)));
};

function card(one) {
  const path = one.live ? `made/${one.key}/${one.path}` : `file/${one.kind}/${one.key}/${one.path}`;
  const name = `${one.outcome}: ${one.task}, scenario ${one.scenario}, ${one.stage}`;
  const moving = one.path.endsWith(".mp4");
  const shown = moving
    ? el("video", {muted: true, loop: true, playsinline: true, controls: true, preload: "metadata", "aria-label": name})
    : el("img", {alt: name});
  if (moving) shown.muted = true;
  const figure = el("figure", {class: one.outcome + (moving ? "" : " strip")}, shown, el("figcaption", {},
    el("b", {}, one.outcome), ` ${one.task}, scenario ${one.scenario}`, el("br"), one.stage));
  later(shown, place(path), why => shown.replaceWith(el("p", {class: "note"}, why)));
  return figure;
}

foundry.watchRollouts = run => foundry.watch(() => `run/${run}/rollouts`, found => {
  foundry.part("rollouts-part", found.count);
  const wanted = found.rollouts.map(one => {
    const key = JSON.stringify([one.live, one.key, one.path]);
    if (!cards.has(key)) cards.set(key, card(one));
    return [key, cards.get(key)];
  });
  const kept = new Set(wanted.map(([key]) => key));
  for (const [key, figure] of cards) {
    if (!kept.has(key)) {
      const source = figure.querySelector("[src]");
      if (source) URL.revokeObjectURL(source.src);
      cards.delete(key);
    }
  }
  const box = foundry.by("rollouts");
  const order = wanted.map(([, figure]) => figure);
  if (order.some((one, at) => box.children[at] !== one) || box.children.length !== order.length) box.replaceChildren(...order);
  const rest = found.count > order.length ? `, ${order.length} of them shown` : "";
  foundry.by("rollouts-note").textContent = `${found.count} recorded episodes, ${found.failures} failures${rest}. `
    + "What was recorded is chosen: the share of failures here is no failure rate.";
  return foundry.pace.while(5);
}, () => {});
