// Words that the model knows, as chips: a press puts the word into the caption that was last being written.
const fields = "#opening textarea, #board textarea";
let field = null;
document.addEventListener("focusin", (event) => { if (event.target.matches(fields)) field = event.target; });
element.addEventListener("mousedown", (event) => { if (event.target.matches("button")) event.preventDefault(); });
element.addEventListener("click", (event) => {
  if (!event.target.matches("button[data-word]")) return;
  if (!field || !field.isConnected || field.readOnly) field = document.querySelector("#opening textarea");
  const word = event.target.dataset.word, at = field.selectionEnd, before = field.value.slice(0, at);
  const space = before && !/\s$/.test(before) ? " " : "";
  const gap = /^[\s.,!?]/.test(field.value.slice(at)) ? "" : " ";
  field.focus();
  field.setRangeText(space + word + gap, field.selectionStart, at, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
});
