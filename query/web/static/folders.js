// The folders of the index as a tree, in which any number can be chosen.

import { get } from "./api.js";
import { h, notice } from "./dom.js";

let known = null;

export const forgetFolders = () => (known = null);

/** chosen: paths; onChange(chosen). */
export function folderTree(chosen, onChange) {
  const element = h("div.folder-tree", { role: "group", "aria-label": "Folders" }, h("p.quiet-text", {}, "Reading the folders …"));
  draw(element, chosen, onChange).catch((error) => notice(error.message, "problem"));
  return element;
}

async function draw(element, chosen, onChange) {
  known ??= await get("/api/folders");
  const roots = nested(known);
  element.replaceChildren(known.length ? h("ul", {}, roots.map((root) => branch(root, root.folder, roots.length === 1))) : h("p.quiet-text", {}, "No folder yet."));

  function branch(node, name, open) {
    const below = (one) => one.folders.some((child) => chosen.includes(child.folder) || below(child));
    const list = h("ul", { hidden: !(open || below(node)) }, node.folders.map((child) => branch(child, child.folder.slice(node.folder.length).replace(/^\//, ""), false)));
    const turn = () => {
      list.hidden = !list.hidden;
      toggle.setAttribute("aria-expanded", String(!list.hidden));
    };
    const toggle = h("button.icon.twist", { type: "button", "aria-label": `Folders in ${node.folder}`, "aria-expanded": String(!list.hidden), onclick: turn });
    const is = chosen.includes(node.folder);
    const choose = h(
      "button.folder-name",
      { type: "button", title: node.folder, "aria-pressed": String(is), dataset: { folder: node.folder }, onclick: () => onChange(is ? chosen.filter((one) => one !== node.folder) : [...chosen, node.folder]) },
      h("span", {}, name),
      h("span.quiet-count", {}, node.pictures.toLocaleString("en")),
    );
    return h("li", {}, h("div.folder-line", {}, node.folders.length ? toggle : h("span.twist"), choose), node.folders.length ? list : null);
  }
}

/** Folders, ordered by path, each with those that are in it. */
function nested(folders) {
  const roots = [];
  const open = [];
  for (const one of [...folders].sort((a, b) => (a.folder < b.folder ? -1 : 1))) {
    const node = { ...one, folders: [] };
    while (open.length && !node.folder.startsWith(open.at(-1).folder.replace(/\/?$/, "/"))) open.pop();
    (open.at(-1)?.folders ?? roots).push(node);
    open.push(node);
  }
  return roots;
}
