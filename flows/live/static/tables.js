// Tables of text, which scroll by themselves where they are wider than the page.
const {el} = foundry;

// header: names. rows: cells, each a text or a node; the first names the row.
foundry.table = (title, header, rows) => {
  const head = el("tr", {}, ...header.map(name => el("th", {scope: "col"}, name)));
  const body = rows.map(([first, ...rest]) => el("tr", {},
    el("th", {scope: "row"}, first), ...rest.map(cell => el("td", {}, cell))));
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...body));
  return el("div", {class: "wide", tabindex: "0", role: "region", "aria-label": title}, table);
};

foundry.titled = (title, header, rows, notes = []) => el("div", {},
  el("h3", {}, title), foundry.table(title, header, rows),
  notes.length ? el("ul", {class: "note"}, ...notes.map(note => el("li", {}, note))) : null);

foundry.keyLink = (key, text = foundry.short(key)) =>
  el("a", {href: "#artifact/" + key, class: "key-link", "data-key": "key " + key}, text);
