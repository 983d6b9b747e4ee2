// What the index may have more: a folder, by its path on the machine of the server, or a feature space.

import { h } from "./dom.js";

const PROFILES = ["style", "instance", "look"];

/** start(wanted): the body of /api/runs. update(state, running): what is there already, and whether a run goes on. The
 * element stays the same, so that what is being typed is not lost. */
export function adding(start) {
  const path = h("input", { type: "text", id: "new-folder", placeholder: "/home/me/Pictures", "aria-label": "Path of a folder on this machine", autocomplete: "off", spellcheck: "false", maxlength: "4096" });
  const submit = h("button", {}, "Add folder");
  const spaces = h("div.row", {});
  const onsubmit = (event) => {
    event.preventDefault();
    if (path.value.trim()) start({ folder: path.value.trim() });
  };
  const element = h(
    "section.card",
    {},
    h("h2", {}, "Add"),
    h("form.add-folder", { onsubmit }, path, submit),
    h("p.quiet-text", {}, "The folder is read, and never written to; its pictures get features in every space."),
    spaces,
  );
  function update(state, running) {
    submit.disabled = running;
    const known = new Set(state.spaces.map((space) => space.name));
    const missing = PROFILES.filter((profile) => !known.has(`mini/${profile}`));
    const button = (profile) => h("button", { type: "button", id: `add-${profile}`, disabled: running || !state.roots.length, onclick: () => start({ by: [profile] }) }, `Add ${profile}`);
    spaces.replaceChildren(...(missing.length ? [...missing.map(button), h("span.quiet-text", {}, "a feature space of the bundled network, for all folders")] : []));
  }
  return { element, update };
}
