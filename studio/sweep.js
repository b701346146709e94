// The sweep: one story under many strengths, already painted, so that the slider needs no server.
const range = element.querySelector("input"), out = element.querySelector("output");
const row = element.querySelector(".sweep-frames"), note = element.querySelector(".sweep-note");
const render = () => {
  const view = props.value;
  if (!view || !view.alphas || !view.alphas.length) { element.firstElementChild.hidden = true; return; }
  element.firstElementChild.hidden = false;
  range.max = String(view.alphas.length - 1);
  const at = Math.min(Number(range.value), view.alphas.length - 1), alpha = view.alphas[at];
  out.textContent = "alpha " + alpha + " = " + view.strengths[at] + " \u00d7 trained";
  range.setAttribute("aria-valuetext", out.textContent);
  const ready = view.columns.filter((column) => column.every(Boolean)).length;
  note.textContent = ready < view.alphas.length ? ready + " of " + view.alphas.length + " strengths are painted." : "";
  view.captions.forEach((caption, index) => {
    let image = row.children[index];
    if (!image) { image = document.createElement("img"); row.append(image); }
    const path = view.columns[at][index];
    const src = path ? "gradio_api/file=" + path : "";
    image.alt = caption + " (alpha " + alpha + ")";
    if (src && image.getAttribute("src") !== src) image.src = src;
    image.classList.toggle("waiting", !src);
  });
  while (row.children.length > view.captions.length) row.lastChild.remove();
};
range.addEventListener("input", render);
watch("value", render);
render();
