// The workbench: joins the views around one selection and answers every viewing act by itself.

const ASK_DELAY = 120;
const PAGE_OF_TOKENS = 20;
const SAY_EVERY = 5000;

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
    marks.show();
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
    act.shown();
  },
  all() {
    view.solo.clear();
    act.shown();
  },
  shown() {
    view.hover = NONE;
    recolour();
    tell();
  },
  point: (event, token, layer) => tooltip.follow(event, token, layer),
  // Where plans can be made: asks the composer for an override of what is selected.
  override: SETUP.steered && (() => window.dispatchEvent(new CustomEvent("lmoe:scope", {
    detail: {
      tokens: view.lo < 0 ? null : [view.lo, view.hi],
      layer: view.layer < 0 ? null : view.data.layers[view.layer],
    },
  }))),
};

const strip = makeStrip(view, act);
const marks = makeMarks(view, act);
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
  marks.show();
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
    tell();
    const [lo, hi] = view.lo < 0 ? [0, view.T - 1] : [view.lo, view.hi];
    const isExact = view.T && !view.previewing && !view.data.run?.live;
    if (isExact) trigger("pick", { id: view.data.id, lo, hi, layer: view.layer });
  }, ASK_DELAY);
}

// A view of some experts alone says which.
function tell() {
  const names = [...view.solo].map((k) => view.data.experts[k].name).join(", ");
  const shown = names && `Shown alone: ${names}. `;
  live.textContent = shown + (view.lo < 0 ? "No token selected" : spokenSelection());
}

function spokenSelection() {
  const cursor = act.cursor();
  const weights = view.weightsOf(cursor, view.layer);
  const k = strongest(weights, 0, Array.from({ length: view.K }, (_, index) => index));
  const expert = view.data.experts[k];
  const layer = view.layer < 0 ? "all layers" : "layer " + view.data.layers[view.layer];
  const weight = view.areShares()
    ? Math.round(100 * weights[k]) + " percent" : "weight " + fixed(weights[k], 2);
  const more = view.hi > view.lo ? `${view.hi - view.lo + 1} tokens selected, ` : "";
  return `${more}${view.nameOf(cursor)} '${visibleText(view.data.tokens[cursor])}', ${layer}, ` +
    `${expert.glyph} ${expert.name} ${weight}`;
}

for (const node of [strip.node, heatmap.canvas]) node.addEventListener("keydown", onKey);

function onKey(event) {
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
}

const main = make("div", "main");
const views = make("div", "views");
views.append(marks.node, strip.node, heatmap.node);
main.append(views, detail.node);
const frame = make("div", "frame");
frame.append(main);

function showEmpty() {
  const empty = make("div", "empty");
  view.data = null;
  if (props.value?.gone) empty.append(make("p", "gone", props.value.gone));
  empty.append(make("strong", "", SETUP.empty));
  const steps = make("ol");
  for (const step of SETUP.steps) steps.append(make("li", "", step));
  empty.append(steps);
  root.replaceChildren(empty);
}

function showNotices() {
  const { data } = view;
  const lines = otherBank(data);
  if (data.total > view.T) {
    lines.push(`Showing the first ${view.T.toLocaleString("en")} of ` +
      `${data.total.toLocaleString("en")} tokens; an export has all.`);
  }
  if (data.uniformity !== null) {
    lines.push(`The router is close to uniform here (mean routing entropy ` +
      `${(data.uniformity * view.mostEntropy()).toFixed(2)} of at most ${view.mostEntropy().toFixed(2)} nats): colours carry little.`);
  }
  if (view.K === 1) lines.push("This bank has one expert, so there is nothing to choose between.");
  lines.push(...(data.run?.notes ?? []));
  if (view.previewing) {
    lines.unshift("Preview: the plan has changed since this text was written. The weights show the " +
      "new plan on the same text; Generate to see what it writes.");
  } else if (unseen) lines.unshift("No preview of the plan. " + unseen);
  notices.replaceChildren(...lines.map((line) => make("p", "", line)));
}

// The composer's plan, where it is another than the one this text was made with.
function otherPlan() {
  const { run } = view.data;
  const plan = SETUP.steered && window.lmoePlan;
  if (!run || run.live || !plan || !isOfLoadedBank(view.data)) return null;
  return plan.problem || plan.signature !== run.signature ? plan : null;
}

const previews = makePreviews((question) => trigger("preview", question), showPreview);
let unseen = ""; // why there is no preview

// Asks for what is to be seen now; until it comes, what is seen stays.
function preview() {
  const plan = otherPlan();
  if (!plan || plan.problem) {
    previews.drop();
    showPreview({ problem: plan?.problem ?? "" });
  } else previews.want({ id: view.data.id, overrides: plan.overrides });
  root.setAttribute("aria-busy", String(previews.isOpen()));
}

function showPreview({ id, shown, problem = "" }) {
  if (!view.data || (id && id !== view.data.id)) return; // of a text that is not shown any more
  const before = [view.previewing, unseen].join();
  if (shown) showWeights(shown, true);
  else if (view.previewing) showWeights(view.data, false);
  unseen = problem;
  root.setAttribute("aria-busy", String(previews.isOpen()));
  root.classList.toggle("previewing", view.previewing);
  if (before !== [view.previewing, unseen].join()) showNotices();
}

function showWeights(shown, isPreview) {
  view.show(shown, isPreview);
  recolour();
  detail.show();
  tellAndAsk();
}

let planned = false;
function planChanged() {
  if (!view.data || planned) return;
  planned = true;
  root.setAttribute("aria-busy", "true");
  requestAnimationFrame(() => {
    planned = false;
    if (view.data) preview();
  });
}

// As a text begins to grow it comes into sight, once: whoever looks elsewhere then is left there.
let grown = "";
function comeIntoSight({ series }) {
  if (series === grown || !root.offsetParent) return;
  grown = series;
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  strip.node.scrollIntoView({ block: "nearest", behavior });
}

// Tells the Studio now and then that someone still looks at a run; see ui/runs.py.
let saidAt = 0;
function saySeen({ series }) {
  if (performance.now() - saidAt < SAY_EVERY) return;
  saidAt = performance.now();
  trigger("seen", { run: series });
}

function build() {
  tooltip.hide();
  if (!props.value?.shape) return showEmpty();
  draw();
  const { run } = props.value;
  if (!run?.live) return;
  saySeen(run);
  comeIntoSight(run);
}

function draw() {
  view.load(props.value);
  unseen = "";
  root.classList.remove("previewing");
  root.classList.toggle("growing", Boolean(view.data.run?.live));
  if (view.goesOn) {
    marks.build();
    strip.build();
    heatmap.build();
    toolbar.show();
    legend.show();
    detail.show();
    showNotices();
    preview();
    return tellAndAsk();
  }
  root.replaceChildren(toolbar.node, legend.node, notices, frame, tooltip.node, live);
  toolbar.build();
  legend.build();
  showNotices();
  marks.build();
  strip.build();
  heatmap.build();
  detail.build();
  preview();
  tellAndAsk();
}

function exact() {
  const cell = props.exact;
  if (!cell || !view.data || view.previewing || cell.id !== view.data.id) return;
  const [lo, hi] = view.lo < 0 ? [0, view.T - 1] : [view.lo, view.hi];
  const isCurrent = cell.lo === lo && cell.hi === hi && cell.layer === view.layer;
  if (cell.gone || isCurrent) detail.showExact(cell);
}

watch("value", build);
watch("exact", exact);
watch("previewed", () => props.previewed && previews.take(props.previewed));
if (SETUP.steered) window.addEventListener("lmoe:plan", planChanged);
onStudio(() => {
  if (!view.data) return;
  planChanged();
  showNotices();
});
new MutationObserver(() => heatmap.paint())
  .observe(document.body, { attributes: true, attributeFilter: ["class"] });
build();
