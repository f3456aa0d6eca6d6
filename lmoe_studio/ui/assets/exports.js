// What can be exported: a row of formats for each thing, and how far a file is.

const root = element.querySelector(".exports");
const offers = make("div", "offers");
const told = make("div", "told");
const words = make("span");
const bar = make("progress");
const stop = make("button", "toggle", "Stop");
stop.type = "button";
told.setAttribute("role", "status");
told.hidden = true;
told.append(words, bar, stop);
stop.addEventListener("click", () => trigger("stop", { run: props.told?.run }));

function makeOffer({ name, row, formats }) {
  const node = make("div", "offer");
  node.append(make("strong", "", "Export the " + name), ...formats.map(([format, label, size]) => {
    const button = make("button", "toggle");
    button.type = "button";
    button.dataset.format = format;
    button.append(label);
    if (size) button.append(make("small", "", " · " + size));
    button.addEventListener("click", () => trigger("export", { name, format }));
    return button;
  }), make("span", "row", "One row: " + row));
  return node;
}

function build() {
  const shown = Array.isArray(props.value) ? props.value : [];
  offers.replaceChildren(...shown.map(makeOffer));
  told.hidden = true;
  root.replaceChildren(...(shown.length ? [offers, told] : []));
}

function tell() {
  const { words: said = "", share, is_problem: isProblem = false } = props.told ?? {};
  const isGoing = share !== undefined;
  told.hidden = !said;
  told.classList.toggle("problem", isProblem);
  words.textContent = said;
  bar.hidden = stop.hidden = !isGoing;
  if (isGoing) bar.value = share;
  for (const button of offers.querySelectorAll("button")) button.disabled = isGoing;
}

watch("value", build);
watch("told", tell);
build();
