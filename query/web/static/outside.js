// Pictures from outside: chosen, dropped or pasted as files, or as an address, which the server fetches if it may.

import { post, upload } from "./api.js";
import { $, notice, say } from "./dom.js";
import { go, state } from "./nav.js";
import { asked, parse } from "./state.js";

const MOST = 21; // the query and 20 examples, as the API takes them

const ofFile = (file) => ({ name: file.name, read: () => upload(file) });

/** An address; one of this page's own pictures is known already. */
function ofAddress(address) {
  const own = address.startsWith(`${location.origin}/`) ? parse(address).q : null; // a tile is a link that asks with it
  return { name: address, read: async () => (own === null ? post("/api/uploads/address", { address }) : { picture: own }) };
}

/** What was dropped or pasted: files, or else addresses. */
function sources(data) {
  const files = [...(data?.files ?? [])];
  if (files.length) return files.map(ofFile);
  const text = data?.getData("text/uri-list") || data?.getData("text/plain") || "";
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  return lines.filter((line) => /^https?:\/\/\S+$/i.test(line)).map(ofAddress);
}

/** The first is the query, the others are further examples of weight 1. */
async function askWith(given) {
  if (!given.length) return;
  say(given.length > 1 ? "Reading the pictures …" : "Reading the picture …");
  document.body.classList.add("busy");
  const found = new Set();
  const problems = [];
  for (const one of given.slice(0, MOST)) {
    try {
      found.add((await one.read()).picture);
    } catch (error) {
      problems.push(given.length > 1 ? `${one.name}: ${error.message}` : error.message);
    }
  }
  document.body.classList.remove("busy");
  const [first, ...others] = found;
  if (first !== undefined) go({ ...asked(state, first), also: others.map((picture) => ({ picture, weight: 1 })) });
  if (given.length > MOST) problems.push(`Only the first ${MOST} of ${given.length} pictures were read.`);
  if (problems.length) notice(problems.slice(0, 3).join(" ") + (problems.length > 3 ? ` And ${problems.length - 3} more.` : ""), "problem");
  else if (others.length) notice(`Searched with ${found.size} pictures together, each with weight 1.`);
}

export function outside() {
  const input = $("#file");
  $("#choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    askWith([...input.files].map(ofFile));
    input.value = "";
  });
  addEventListener("paste", (event) => {
    if (event.target.matches?.("input, textarea") && !event.clipboardData?.files.length) return;
    const given = sources(event.clipboardData);
    if (!given.length) {
      if (event.clipboardData?.getData("text/plain")) notice("What was pasted is neither a picture nor the address of one.", "problem");
      return;
    }
    event.preventDefault();
    askWith(given);
  });
  const drop = $("#drop");
  const carries = (event) => ["Files", "text/uri-list"].some((type) => event.dataTransfer?.types.includes(type));
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    drop.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.hidden = true;
  });
  addEventListener("dragend", () => (drop.hidden = true));
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    drop.hidden = true;
    const given = sources(event.dataTransfer);
    given.length ? askWith(given) : notice("What was dropped is neither a picture nor the address of one.", "problem");
  });
}
