// What the run found, as far as it is known.
const {el} = foundry;

foundry.watchVerdict = run => foundry.watch(() => `run/${run}/verdict`, found => {
  const known = found.sentences.length || found.tables.length;
  foundry.part("found", known);
  const lines = found.sentences.flatMap((text, at) => at ? [el("br"), text] : [text]);
  foundry.redraw(foundry.by("verdict"),
    lines.length ? el("p", {class: "verdict"}, ...lines) : "",
    ...found.tables.map(one => foundry.titled(one.title, one.header, one.rows, one.notes)),
    ...found.pictures.map(one => el("figure", {class: "drawn"}, foundry.picture(`file/${one.kind}/${one.key}/${one.path}`, one.alt))));
  return foundry.pace.while(3);
}, () => {});
