// A comparison: a table of numbers, texts side by side around one selection, and a map of where the
// routing differs. Text reaches the page by textContent only, whatever it holds.

const root = element.querySelector(".comparison");
let columns = []; // { name, view, strip }
let selected = NONE;
const LEAST_SEEN = 0.005; // divergences closer together than this look alike
let stops = []; // positions where runs part, in order

function select(index) {
  selected = index;
  for (const { view, strip } of columns) {
    const inside = index >= 0 && index < view.T;
    view.lo = view.hi = view.anchor = inside ? index : NONE;
    strip.markSelection();
    if (inside) strip.reveal(index);
  }
  live.textContent = index < 0 ? "" : columns.map(({ name, view }) =>
    `${name}: ${index < view.T ? "'" + visibleText(view.data.tokens[index]) + "'" : "ended"}`).join(", ");
  map?.mark(index);
}

function makeColumn(run) {
  const view = makeView();
  view.load(run.trace);
  const act = {
    cursor: () => selected,
    pick: (index) => select(index),
    point: (event, token, layer) => tooltipOf(view).follow(event, token, layer),
  };
  const strip = makeStrip(view, act);
  strip.node.setAttribute("aria-label", `Tokens of ${run.name}`);
  strip.node.setAttribute("aria-multiselectable", "false");
  strip.node.addEventListener("keydown", onKey);
  const node = make("section", run.name === "base" ? "column base" : "column");
  const head = make("div", "head");
  const plan = make("code", "plan", run.plan);
  plan.title = run.plan;
  head.append(make("strong", "", nameOf(run.name)), plan);
  node.append(head, strip.node);
  return { name: run.name, node, view, strip };
}

let tooltip;
let tooltipView;
function tooltipOf(view) {
  if (tooltipView === view) return tooltip;
  tooltip?.hide();
  tooltip?.node.remove();
  tooltip = makeTooltip(view);
  tooltipView = view;
  root.append(tooltip.node);
  return tooltip;
}

const nameOf = (name) => (name === "base" ? "Base model" : name);

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const last = Math.max(...columns.map(({ view }) => view.T)) - 1;
  const keys = {
    ArrowLeft: () => select(Math.max(selected - 1, 0)),
    ArrowRight: () => select(Math.min(selected + 1, last)),
    Home: () => select(0),
    End: () => select(last),
    Escape: () => select(NONE),
    d: nextStop,
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
}

function nextStop() {
  if (!stops.length) return;
  select(stops.find((position) => position > selected) ?? stops[0]);
}

function makeTable(runs) {
  const table = make("table");
  const withTexts = !runs.some((run) => run.trace);
  const withReference = runs.some((run) => run.reference !== null);
  const base = runs.find((run) => run.name === "base")?.reference;
  const head = ["", "tokens", "tokens/s", "ended by"];
  if (withReference) head.push("log-prob of the reference", "against the base");
  if (withTexts) head.push("text");
  const row = make("tr");
  row.append(...head.map((text) => make("th", "", text)));
  const body = runs.map((run) => {
    const line = make("tr");
    const cells = [nameOf(run.name), run.tokens, run.tokens_per_second.toFixed(1), run.finish];
    if (withReference) {
      cells.push(run.reference.toFixed(2),
        base == null || run.name === "base" ? "" : signed(run.reference - base));
    }
    line.append(...cells.map((text, i) => make(i ? "td" : "th", "", text)));
    if (withTexts) line.append(make("td", "text", run.text || "∅"));
    return line;
  });
  table.append(row, ...body);
  return table;
}

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

function makePartings(value) {
  const node = make("div", "partings");
  const words = value.divergences.map(([one, other, position]) => {
    const button = make("button", "toggle", `${nameOf(one)} | ${nameOf(other)}: token ${position}`);
    button.type = "button";
    button.title = "Go to the first token that differs";
    button.addEventListener("click", () => select(position));
    return button;
  });
  node.append(make("h4", "", words.length ? "Texts part at" : "The texts never part"), ...words);
  if (words.length) node.append(make("span", "hint", "d: the next one"));
  return node;
}

// A map that is of one colour would look like a picture; what it has to say is a sentence.
function flatMap({ names, shape, most, least, mean }) {
  const [T] = shape;
  const pair = names.join(" and ");
  if (!T) return `${pair} share no token, so there is nothing to compare their routing on.`;
  if (most < LEAST_SEEN) return `The routing of ${pair} is the same at every shared token and layer.`;
  if (most - least >= LEAST_SEEN) return "";
  const what = least > 1 - LEAST_SEEN ? "they have no expert in common" : "it differs as much everywhere";
  return `The routing of ${pair} differs by ${mean.toFixed(3)} of 1 (Jensen-Shannon divergence) at every ` +
    `shared token and layer: ${what}.`;
}

function makeMap(differences) {
  const flat = flatMap(differences);
  if (flat) {
    const node = make("section", "map flat");
    node.append(make("p", "", flat));
    return { node, mark() {} };
  }
  const [T, L] = differences.shape;
  const values = decodeBytes(differences.values);
  const node = make("section", "map");
  const caption = make("div", "caption");
  const ramp = make("span", "ramp");
  ramp.style.background = `linear-gradient(90deg, ${CIVIDIS.map((rgb) => `rgb(${rgb})`).join()})`;
  caption.append(
    make("span", "text", `Routing of ${differences.names.join(" against ")}, layers (the first at the bottom) by shared ` +
      `tokens: Jensen-Shannon divergence, mean ${differences.mean.toFixed(3)} of 1`),
    make("span", "end", "0"), ramp, make("span", "end", differences.most.toFixed(3)));
  const stage = make("div", "stage");
  const canvas = Object.assign(make("canvas"), { width: Math.max(T, 1), height: Math.max(L, 1) });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", caption.textContent);
  const image = new ImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const table = Array.from({ length: 256 }, (_, i) => pixel(cividis(i / 255)));
  for (let t = 0; t < T; t++) {
    for (let l = 0; l < L; l++) pixels[(L - 1 - l) * T + t] = table[values[t * L + l]];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  const column = make("div", "cross column");
  column.hidden = true;
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    select(Math.min(T - 1, Math.floor(((event.clientX - box.left) / box.width) * T)));
  });
  stage.append(canvas, column);
  node.append(caption, stage);
  const width = 100 / Math.max(T, 1);
  return {
    node,
    mark(index) {
      column.hidden = index < 0 || index >= T;
      column.style.left = index * width + "%";
      column.style.width = width + "%";
    },
  };
}

const live = make("div", "live");
live.setAttribute("aria-live", "polite");
let map = null;

function build() {
  const { value } = props;
  if (!value) return root.replaceChildren();
  if (value.gone) return root.replaceChildren(make("p", "gone", value.gone));
  columns = value.runs.filter((run) => run.trace).map(makeColumn);
  map = value.differences && makeMap(value.differences);
  stops = [...new Set(value.divergences.map(([, , position]) => position))].sort((a, b) => a - b);
  showNotes();
  root.replaceChildren(notes, makeTable(value.runs));
  if (columns.length) {
    const strips = make("div", "columns");
    strips.append(...columns.map((column) => column.node));
    root.append(makePartings(value), strips);
  }
  if (map) root.append(map.node);
  root.append(live);
  tooltipView = null;
  for (const { name, strip } of columns) {
    strip.build();
    markPartings(name, strip, value.divergences);
  }
}

const notes = make("div", "notices");
function showNotes() {
  const { value } = props;
  if (!value?.runs) return;
  notes.replaceChildren(...[...otherBank(value), ...value.warnings].map((line) => make("p", "", line)));
}

// Marks every token at which a run parts from another, with the others' names.
function markPartings(name, strip, divergences) {
  const others = new Map();
  for (const [one, other, position] of divergences) {
    if (one !== name && other !== name) continue;
    const names = others.get(position) ?? [];
    others.set(position, [...names, nameOf(one === name ? other : one)]);
  }
  for (const [position, names] of others) {
    const mark = strip.partAt(position);
    mark.classList.add("parting");
    mark.dataset.parts = "≠ " + names.join(", ");
    mark.title = "From here on it is another text than that of " + names.join(" and ");
  }
  const start = strip.node.querySelector(".boundary");
  if (start) strip.node.scrollTop = start.offsetTop - 40;
}

watch("value", build);
build();
onStudio(showNotes);
