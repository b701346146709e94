// The board of frames. Its HTML never depends on the value, so Gradio leaves this DOM alone: a caption that somebody
// is writing keeps its cursor while pictures arrive. Text goes in as text, never as HTML.
const ICONS = {
  redraw: "M20 11a8 8 0 1 0-2.3 6M20 4v7h-7",
  reroll: "M4 5h16v11H10l-4 4v-4H4zM8.5 10.5h.01M12 10.5h.01M15.500 10.5h.01",
  pin: "M9 3h6l-1 6 4 4H6l4-4zM12 13v8",
  earlier: "M15 5l-7 7 7 7",
  later: "M9 5l7 7-7 7",
  insert: "M12 5v14M5 12h14",
  delete: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
};
const TOOLS = [
  ["redraw", "Redraw"],
  ["reroll", "Other captions for"],
  ["pin", "Pin"],
  ["earlier", "Move earlier:"],
  ["later", "Move later:"],
  ["insert", "Insert after"],
  ["delete", "Delete"],
];
const list = element.querySelector(".frames");
const find = (name) => element.querySelector(name);
const known = new Set((props.vocabulary || "").split(" ").filter(Boolean));
let last = -1;

const make = (tag, className, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const icon = (name) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
};
// what changed stays alone: a screen reader and a cursor notice every write
const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };
const show = (node, yes) => { if (node.hidden === yes) node.hidden = !yes; };
const label = (node, value) => {
  if (node.getAttribute("aria-label") !== value) { node.setAttribute("aria-label", value); node.title = value; }
};
const act = (action, id, value) => trigger("act", { action, id: id ?? null, value: value ?? null });

const unknown = (caption) => {
  const found = [];
  if (!known.size) return found;
  for (const [word] of caption.matchAll(/[\p{L}\p{M}]+(?:['\u2019][\p{L}\p{M}]+)?/gu)) {
    const plain = word.toLowerCase().replace("\u2019", "'");
    if (!known.has(plain) && !known.has(plain.replace(/'s$/, "")) && !found.includes(word)) found.push(word);
  }
  return found;
};
const underline = (card) => {
  const caption = card.field.value, words = unknown(caption);
  card.under.replaceChildren();
  let rest = caption;
  if (words.length) {
    for (const part of caption.split(/([\p{L}\p{M}'\u2019]+)/u)) {
      card.under.append(words.includes(part) ? make("u", "", {}, part) : part);
    }
    rest = "";
  }
  card.under.append(rest + "\u200b");
  const named = words.map((word) => "\u201c" + word + "\u201d").join(", ");
  text(card.hint, words.length ? "Not known to this model: " + named + ". Something else will be painted." : "");
  show(card.hint, words.length > 0);
};

const newCard = (id) => {
  const card = { id, caption: null, src: null };
  card.number = make("span", "number", { "aria-hidden": "true" });
  card.shot = make("img", "shot", { alt: "" });
  card.shot.hidden = true;
  card.ghost = make("img", "ghost", { alt: "", "aria-hidden": "true" });
  card.ghost.hidden = true;
  card.bar = make("span", "bar", { "aria-hidden": "true" });
  card.pinned = make("span", "pinned", { "aria-hidden": "true" }, icon("pin"));
  card.under = make("div", "under", { "aria-hidden": "true" });
  card.field = make("textarea", "caption", { rows: "1", maxlength: "2000", spellcheck: "false" });
  card.hint = make("p", "hint");
  card.flag = make("p", "hint", {}, "The safety checker withheld this picture. Change its caption, or redraw it.");
  card.scores = make("ul", "scores");
  card.scores.hidden = true;
  card.staleKeep = make("button", "small", { type: "button" }, "Keep");
  card.staleWrite = make("button", "small", { type: "button" }, "Rewrite");
  card.stale = make("div", "stale", {}, make("span", "", {}, "An earlier caption changed."), card.staleKeep, card.staleWrite);
  card.options = make("div", "options", { role: "group" });
  card.tools = make("div", "tools", { role: "group" });
  card.buttons = {};
  for (const [name] of TOOLS) {
    const button = make("button", "tool " + name, { type: "button" }, icon(name));
    button.addEventListener("click", () => act(name, id));
    card.buttons[name] = button;
    card.tools.append(button);
  }
  card.staleKeep.addEventListener("click", () => act("keep", id));
  card.staleWrite.addEventListener("click", () => act("rewrite", id));
  card.field.addEventListener("input", () => underline(card));
  card.field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); card.field.blur(); }
    if (event.key === "Escape") { card.field.value = card.caption; underline(card); card.field.blur(); }
  });
  card.field.addEventListener("change", () => commit(card));
  card.field.addEventListener("blur", () => commit(card));
  const picture = make("div", "picture", {}, card.shot, card.ghost, card.number, card.pinned, card.bar);
  const caption = make("div", "cap", {}, card.under, card.field);
  card.node = make("li", "frame", {}, picture, caption, card.hint, card.flag, card.scores, card.stale, card.options, card.tools);
  card.node.card = card;
  return card;
};
const commit = (card) => {
  const value = card.field.value.trim().replace(/\s+/g, " ");
  if (value === card.caption) return;
  if (!value) { card.field.value = card.caption; underline(card); return; }
  card.caption = value;
  act("caption", card.id, value);
};

const draw = (card, frame, index, count, view) => {
  const name = "frame " + (index + 1);
  text(card.number, String(index + 1));
  if (frame.caption !== card.caption) {
    const untouched = document.activeElement !== card.field || card.field.value === (card.caption || "");
    card.caption = frame.caption;
    if (untouched) card.field.value = frame.caption;
    underline(card);
  }
  card.field.readOnly = frame.pinned;
  label(card.field, "Caption of " + name);
  card.field.placeholder = frame.writing ? "Writing\u2026" : "The captioner writes this one.";
  if (card.shot.alt !== frame.caption) card.shot.alt = frame.caption;
  if (card.src !== frame.src) {
    card.src = frame.src;
    if (!frame.src) { card.shot.hidden = true; card.shot.removeAttribute("src"); }
    else {
      const next = new Image();
      next.onload = () => {
        if (card.src !== frame.src) return;
        card.shot.src = frame.src;
        card.shot.hidden = false;
        if (!card.preview) card.ghost.hidden = true;
      };
      next.src = frame.src;
    }
  }
  card.preview = frame.preview;
  if (frame.preview) { card.ghost.src = frame.preview; card.ghost.hidden = false; }
  else if (!frame.src || card.shot.getAttribute("src") === frame.src) card.ghost.hidden = true;
  card.bar.style.width = Math.round(100 * (frame.progress || 0)) + "%";
  show(card.bar, frame.progress !== null && frame.progress !== undefined);
  show(card.pinned, frame.pinned);
  show(card.stale, frame.stale);
  show(card.flag, frame.flagged);
  label(card.staleKeep, "Keep the caption of " + name);
  label(card.staleWrite, "Rewrite the caption of " + name);
  card.node.classList.toggle("busy", frame.writing || frame.progress !== null);
  card.node.classList.toggle("is-pinned", frame.pinned);
  card.node.title = frame.facts;
  label(card.tools, "What to do with " + name);
  for (const [tool, words] of TOOLS) label(card.buttons[tool], (tool === "pin" && frame.pinned ? "Unpin" : words) + " " + name);
  card.buttons.pin.setAttribute("aria-pressed", String(frame.pinned));
  card.buttons.redraw.disabled = frame.pinned || !frame.caption;
  card.buttons.reroll.disabled = frame.pinned;
  card.buttons.earlier.disabled = index === 0;
  card.buttons.later.disabled = index === count - 1;
  card.buttons.insert.disabled = view.full;
  options(card, frame, name, view);
  scores(card, frame, name, view);
};

// the place for scores is there as soon as they are asked for, so that nothing jumps when they come
const scores = (card, frame, name, view) => {
  show(card.scores, view.scoring);
  const key = JSON.stringify(frame.scores || []);
  if (card.scoresKey === key) return;
  card.scoresKey = key;
  label(card.scores, "Scores of " + name);
  card.scores.replaceChildren(...(frame.scores || []).map(([kind, words]) => make("li", kind, {}, words)));
};

const options = (card, frame, name, view) => {
  const mine = view.asking === frame.id;
  const key = mine ? JSON.stringify(view.options) : "";
  show(card.options, mine);
  if (card.optionsKey === key) return;
  card.optionsKey = key;
  label(card.options, "Suggestions for " + name);
  card.options.replaceChildren();
  if (!mine) return;
  view.options.forEach((option, number) => {
    const button = make("button", "option", { type: "button" }, option);
    button.addEventListener("click", () => act("choose", frame.id, number));
    card.options.append(button);
  });
  const no = make("button", "small", { type: "button" }, view.options.length ? "Keep mine" : "Thinking\u2026");
  no.addEventListener("click", () => act("dismiss", frame.id));
  card.options.append(no);
};

const render = () => {
  const view = props.value;
  if (!view || typeof view !== "object" || view.version <= last) return;
  last = view.version;
  const focused = document.activeElement;
  const cards = new Map([...list.children].map((node) => [node.card.id, node.card]));
  view.frames.forEach((frame, index) => {
    const card = cards.get(frame.id) || newCard(frame.id);
    cards.delete(frame.id);
    if (list.children[index] !== card.node) list.insertBefore(card.node, list.children[index] || null);
    draw(card, frame, index, view.frames.length, view);
  });
  for (const card of cards.values()) card.node.remove();
  if (focused && focused !== document.activeElement && element.contains(focused) && !focused.disabled) focused.focus();
  const some = view.frames.length > 0;
  show(find(".empty"), !some);
  show(find(".stale-all"), view.stale > 1);
  text(find(".message"), view.message);
  element.querySelector(".board").setAttribute("aria-busy", String(view.busy));
  find("[data-act=stop]").disabled = !view.busy;
  find("[data-act=continue]").disabled = !view.unfinished;
  find("[data-act=more]").disabled = view.full;
  find("[data-act=undo]").disabled = !view.can_undo;
  find("[data-act=redo]").disabled = !view.can_redo;
};

for (const button of element.querySelectorAll("[data-act]")) {
  button.addEventListener("click", () => act(button.dataset.act));
}
element.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches("textarea")) return;
  event.preventDefault();
  act(event.shiftKey ? "redo" : "undo");
});
watch("value", render);
render();
