// Asking again and again, elements, numbers as words. Texts of anybody become text nodes, nothing else.
const SVG = "http://www.w3.org/2000/svg";
const HIDDEN_SECONDS = 30, MOST_SECONDS = 60;

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter(one => one !== null && one !== undefined && one !== ""));
  return node;
}

foundry.el = (tag, attributes = {}, ...children) =>
  filled(document.createElement(tag), attributes, children);
foundry.svg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);
foundry.by = id => document.getElementById(id);
foundry.short = key => (key || "").slice(0, 12);
foundry.runLink = run => "/foundry-run/" + encodeURIComponent(run);

// Replaces what an element holds; what had the focus in it has it afterwards, by data-key.
foundry.redraw = (node, ...children) => {
  const active = document.activeElement;
  const key = node.contains(active) ? active.dataset.key : undefined;
  node.replaceChildren(...children);
  if (key !== undefined) {
    const again = [...node.querySelectorAll("[data-key]")].find(one => one.dataset.key === key);
    if (again) again.focus({preventScroll: true});
  }
};

foundry.fetch = (path, more = {}) => fetch("/foundry-live/" + path, {
  headers: {...foundry.headers, ...more}, credentials: "omit", cache: "no-store",
});

foundry.ask = async path => {
  const answer = await foundry.fetch(path);
  if (answer.ok) return answer.json();
  throw new Error(await words(answer));
};

async function words(answer) {
  const text = await answer.text();
  try {
    const told = JSON.parse(text);
    return told.hint ? `${told.error} (${told.hint})` : told.error;
  } catch {
    return text;
  }
}

// Asks for JSON until the page is left; draws what has changed. draw returns after how many seconds
// the next question is due. A page that nobody sees asks every half minute, and a server that does
// not answer is asked more and more rarely. Returns what asks at once.
foundry.watch = (path, draw, problem = foundry.problem) => {
  let tag = "", timer = 0, due = 1.5, failures = 0, busy = false, wanted = false;
  const again = async () => {
    clearTimeout(timer);
    if (busy) {
      wanted = true;  // what is under way may have been asked before something moved
      return;
    }
    busy = true;
    wanted = false;
    try {
      const answer = await foundry.fetch(path(), tag ? {"If-None-Match": tag} : {});
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(await words(answer));
        due = draw(await answer.json()) || due;
        tag = answer.headers.get("ETag") || "";
      }
      failures = 0;
      problem("");
    } catch (error) {
      failures += 1;
      tag = "";
      problem(error instanceof TypeError ? "The server does not answer; it is asked again." : error.message);
    }
    busy = false;
    if (wanted) return void again();
    const seconds = Math.min(due * 2 ** Math.min(failures, 6), Math.max(due, MOST_SECONDS));
    timer = setTimeout(again, 1000 * (document.hidden ? Math.max(seconds, HIDDEN_SECONDS) : seconds));
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) again(); });
  again();
  return () => { tag = ""; again(); };
};

// A part of the page that there may be nothing for, with its link.
foundry.part = (id, known) => {
  foundry.by(id).hidden = !known;
  document.querySelector(`#parts [href="#${id}"]`).hidden = !known;
};

foundry.problem = text => {
  const line = foundry.by("problem");
  if (line.textContent !== text) line.textContent = text;
  line.hidden = !text;
};

// For who listens to the page.
foundry.say = text => { foundry.by("said").textContent = text; };

foundry.duration = seconds => {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
};

foundry.number = value => {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return String(Number(value.toPrecision(4)));
};

foundry.bytes = size => size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} kB` : `${(size / 1e6).toFixed(1)} MB`;

foundry.moment = iso => {
  const time = iso ? new Date(iso) : null;
  return time && !Number.isNaN(time.getTime()) ? time.toLocaleString("sv").slice(0, 16) : "";
};

foundry.pace = {running: true, while: (seconds, after = 20) => foundry.pace.running ? seconds : after};
