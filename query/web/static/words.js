// The search field for words: where the index has a feature space that takes them; else it says what would be needed.

import { $, h } from "./dom.js";
import { go, index, state } from "./nav.js";

const NEEDED = "No feature space of this index takes words. Fetch a network that reads text with “diffsim models fetch clip-vit-b32” and add its space with “diffsim index --model clip-vit-b32 --variant global”.";

export function drawWords(now) {
  const takes = index.spaces.some((space) => space.takes_text);
  const input = h("input", { type: "search", name: "words", value: now.words, maxlength: "1000", placeholder: takes ? "Search with words" : "Words: what is needed?", "aria-label": "Search with words", title: takes ? "What the picture shows; beside a picture, what it should show too" : NEEDED });
  const told = h("p.words-needed", { role: "status", hidden: true }, NEEDED);
  const onsubmit = (event) => {
    event.preventDefault();
    if (!takes) told.hidden = false;
    else go({ ...state, view: "pictures", words: input.value.trim() });
  };
  $("#words").replaceChildren(h("form", { role: "search", onsubmit }, input), told);
}
