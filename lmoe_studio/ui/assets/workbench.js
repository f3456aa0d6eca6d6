// The workbench: joins the views around one selection and answers every viewing act by itself.

const ASK_DELAY = 120;
const TOOLTIP_DELAY = 150;
const PAGE_OF_TOKENS = 20;

const root = element.querySelector(".workbench");
const view = makeView();

const act = {
  cursor: () => (view.anchor === view.lo ? view.hi : view.lo),

  // Select a token, or the range from where the selection began.
  pick(index, extend = false) {
    if (!extend || view.anchor < 0) view.anchor = index;
    view.lo = Math.min(view.anchor, index);
    view.hi = Math.max(view.anchor, index);
    selectionChanged(index);
  },
  clear() {
    view.lo = view.hi = view.anchor = NONE;
    selectionChanged(NONE);
  },
  setLayer(layer) {
    if (!view.data || layer === view.layer) return;
    view.layer = layer;
    strip.paint();
    heatmap.moveCross();
    detail.show();
    toolbar.show();
    tellAndAsk();
  },
  hover(k) {
    if (view.hover === k) return;
    view.hover = k;
    recolour();
  },
  solo(k, add = false) {
    const was = view.solo.has(k);
    const only = was && view.solo.size === 1;
    if (add) view.solo[was ? "delete" : "add"](k);
    else {
      view.solo.clear();
      if (!only) view.solo.add(k);
    }
    view.hover = NONE;
    recolour();
  },
  all() {
    view.solo.clear();
    view.hover = NONE;
    recolour();
  },
  point: (event, token, layer) => tooltip.follow(event, token, layer),
};

const strip = makeStrip(view, act);
const heatmap = makeHeatmap(view, act);
const detail = makeDetail(view, act);
const toolbar = makeToolbar(view, act, recolour);
const legend = makeLegend(view, act);
const tooltip = makeTooltip(view);
const notices = make("div", "notices");
const live = make("div", "live");
live.setAttribute("aria-live", "polite");

function recolour() {
  strip.paint();
  heatmap.paint();
  legend.show();
  toolbar.show();
}

function selectionChanged(cursor) {
  tooltip.hide();
  strip.markSelection();
  heatmap.moveCross();
  detail.show();
  if (cursor >= 0) {
    strip.reveal(cursor);
    heatmap.reveal(cursor);
  }
  tellAndAsk();
}

// Say the selection aloud and ask for its exact numbers, once it has come to rest.
let timer = 0;
function tellAndAsk() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    live.textContent = view.lo < 0 ? "No token selected" : spokenSelection();
    const [lo, hi] = view.lo < 0 ? [0, view.T - 1] : [view.lo, view.hi];
    if (view.T) trigger("pick", { id: view.data.id, lo, hi, layer: view.layer });
  }, ASK_DELAY);
}

function spokenSelection() {
  const cursor = act.cursor();
  const rows = view.rowsAt(view.layer);
  const offset = view.offsetAt(cursor, view.layer);
  const k = strongest(rows, offset, Array.from({ length: view.K }, (_, index) => index));
  const expert = view.data.experts[k];
  const layer = view.layer < 0 ? "all layers" : "layer " + view.data.layers[view.layer];
  const weight = Math.round((100 * rows[offset + k] * view.data.scale) / 255);
  const more = view.hi > view.lo ? `${view.hi - view.lo + 1} tokens selected, ` : "";
  return `${more}token ${cursor} '${visibleText(view.data.tokens[cursor])}', ${layer}, ` +
    `${expert.glyph} ${expert.name} ${weight} percent`;
}

strip.node.addEventListener("keydown", (event) => {
  if (!view.data || event.ctrlKey || event.metaKey || event.altKey) return;
  const last = view.T - 1;
  const from = view.lo < 0 ? NONE : act.cursor();
  const move = (index) => act.pick(Math.min(Math.max(index, 0), last), event.shiftKey);
  const keys = {
    ArrowLeft: () => move(from < 0 ? last : from - 1),
    ArrowRight: () => move(from + 1),
    PageUp: () => move(from - PAGE_OF_TOKENS),
    PageDown: () => move(Math.max(from, 0) + PAGE_OF_TOKENS),
    Home: () => move(0),
    End: () => move(last),
    ArrowUp: () => act.setLayer(Math.min(view.layer + 1, view.L - 1)),
    ArrowDown: () => act.setLayer(Math.max(view.layer - 1, ALL_LAYERS)),
    Escape: () => act.clear(),
    0: () => act.all(),
  };
  for (let k = 0; k < Math.min(9, view.K); k++) keys[k + 1] = () => act.solo(k);
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

const main = make("div", "main");
const views = make("div", "views");
views.append(strip.node, heatmap.node);
main.append(views, detail.node);
const frame = make("div", "frame");
frame.append(main);

function showEmpty() {
  const empty = make("div", "empty");
  empty.append(make("strong", "", "No trace yet"));
  const steps = make("ol");
  for (const step of [
    "Write a text above, or take an example.",
    "Press Trace: one pass through the model records how every token was routed.",
    "Select tokens and layers here to see which experts were mixed, and how much.",
  ]) steps.append(make("li", "", step));
  empty.append(steps);
  root.replaceChildren(empty);
}

function showNotices() {
  const { data } = view;
  const lines = [];
  if (data.total > view.T) {
    lines.push(`Showing the first ${view.T.toLocaleString("en")} of ` +
      `${data.total.toLocaleString("en")} tokens; an export has all.`);
  }
  if (data.uniformity !== null) {
    lines.push(`The router is close to uniform here (mean entropy ${data.uniformity.toFixed(2)} ` +
      "of 1): colours carry little.");
  }
  if (view.K === 1) lines.push("This bank has one expert, so there is nothing to choose between.");
  notices.replaceChildren(...lines.map((line) => make("p", "", line)));
}

function build() {
  tooltip.hide();
  if (!props.value) return showEmpty();
  view.load(props.value);
  root.replaceChildren(toolbar.node, legend.node, notices, frame, tooltip.node, live);
  toolbar.build();
  legend.build();
  showNotices();
  strip.build();
  heatmap.build();
  detail.build();
  tellAndAsk();
}

// Named like the property it follows: a quoted name Gradio would take for an event's.
function exact() {
  const cell = props.exact;
  if (!cell || !view.data || cell.id !== view.data.id) return;
  const [lo, hi] = view.lo < 0 ? [0, view.T - 1] : [view.lo, view.hi];
  const isCurrent = cell.lo === lo && cell.hi === hi && cell.layer === view.layer;
  if (cell.gone || isCurrent) detail.showExact(cell);
}

watch("value", build);
watch(exact.name, exact);
new MutationObserver(() => heatmap.paint())
  .observe(document.body, { attributes: true, attributeFilter: ["class"] });
build();
