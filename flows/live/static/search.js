// Artifacts by the beginning of a key, kind, stage, alias or a file's digest.
const {el} = foundry;

foundry.searchArtifacts = (input, list) => {
  let timer = 0, asked = 0;
  const search = async () => {
    const words = input.value.trim(), mine = asked += 1;
    if (!words) return list.replaceChildren();
    try {
      const found = await foundry.ask("search?words=" + encodeURIComponent(words));
      if (mine !== asked) return;
      list.replaceChildren(...found.artifacts.map(one => el("li", {},
        foundry.keyLink(one.key), ` ${one.kind || ""} `, el("span", {class: "soft"},
          [...one.stages.slice(0, 4), ...one.aliases, foundry.moment(one.created_at), one.present ? "" : "gone"].filter(Boolean).join(" · ")))));
      if (!found.artifacts.length) list.replaceChildren(el("li", {class: "note"}, "Nothing is called so."));
      if (found.more) list.append(el("li", {class: "note"}, "and more: type more of it"));
      foundry.say(`${found.artifacts.length} artifacts found`);
    } catch (error) {
      list.replaceChildren(el("li", {class: "note"}, error.message));
    }
  };
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 250); });
  input.form.addEventListener("submit", event => { event.preventDefault(); search(); });
};
