// Above the views: how they are coloured, which layer, and the legend. None of it touches the model.

const TOOLTIP_DELAY = 150;

function labelled(text, ...controls) {
  const label = make("label", "control");
  label.append(make("span", "", text), ...controls);
  return label;
}

function input(type, attributes) {
  return Object.assign(make("input"), { type, ...attributes });
}

function makeToolbar(view, act, recolour) {
  const node = make("div", "toolbar");
  const colour = make("select");
  const slider = input("range", { min: 0, step: 1 });
  const number = input("number", { min: 0, step: 1 });
  const all = make("button", "toggle", "All layers (mean)");
  const gain = input("range", { min: 0.5, max: 3, step: 0.1, value: 1 });
  const reset = make("button", "quiet", "reset");
  const glyphs = make("button", "toggle", "Letters");
  all.type = reset.type = glyphs.type = "button";
  glyphs.title = "Show the experts' letters above the tokens";
  slider.setAttribute("aria-label", "Layer");
  number.setAttribute("aria-label", "Layer number");
  reset.setAttribute("aria-label", "Reset the intensity");
  const layer = make("div", "control layer");
  layer.append(make("span", "", "Layer"), slider, number, all);
  const intensity = labelled("Intensity", gain);
  const strength = make("div", "control"); // one piece, so that its reset never begins a row
  strength.append(intensity, reset);
  node.append(labelled("Colour by", colour), layer, strength, glyphs);

  function build() {
    const group = make("optgroup");
    group.label = "Weight of one expert";
    view.data.experts.forEach((expert, k) => {
      group.append(Object.assign(make("option", "", `${expert.glyph} ${expert.name}`), { value: k }));
    });
    colour.replaceChildren(
      Object.assign(make("option", "", "Strongest expert"), { value: "dominant" }),
      Object.assign(make("option", "", "Routing entropy"), { value: "entropy" }),
      group);
    slider.max = view.L - 1;
    if (view.layer < 0) slider.value = Math.floor(view.L / 2);
    number.min = view.data.layers[0];
    number.max = view.data.layers[view.L - 1];
    show();
  }

  function show() {
    colour.value = String(view.colour);
    glyphs.setAttribute("aria-pressed", String(view.glyphs));
    all.setAttribute("aria-pressed", String(view.layer < 0));
    layer.classList.toggle("all", view.layer < 0);
    if (view.layer >= 0) slider.value = view.layer;
    number.value = view.layer < 0 ? "" : view.data.layers[view.layer];
    slider.setAttribute("aria-valuetext", view.layer < 0 ? "all layers" : number.value);
  }

  colour.addEventListener("change", () => {
    view.colour = /^\d+$/.test(colour.value) ? Number(colour.value) : colour.value;
    recolour();
  });
  slider.addEventListener("input", () => act.setLayer(Number(slider.value)));
  number.addEventListener("input", () => {
    const index = view.data.layers.indexOf(Number(number.value));
    if (number.value !== "" && index >= 0) act.setLayer(index);
  });
  all.addEventListener("click", () =>
    act.setLayer(view.layer < 0 ? Number(slider.value) : ALL_LAYERS));
  gain.addEventListener("input", () => {
    view.gain = Number(gain.value);
    recolour();
  });
  reset.addEventListener("click", () => {
    gain.value = view.gain = 1;
    recolour();
  });
  glyphs.addEventListener("click", () => {
    view.glyphs = !view.glyphs;
    recolour();
  });
  return { node, build, show };
}

function makeLegend(view, act) {
  const node = make("div", "legend");
  const chips = make("div", "chips");
  const all = make("button", "quiet", "show all");
  all.type = "button";
  all.addEventListener("click", () => act.all());
  const hint = make("span", "hint",
    "Click an expert to see it alone, shift-click to add one; the model stays as it is.");
  node.append(chips, all, hint);
  let buttons = [];

  function build() {
    buttons = view.data.experts.map((expert, k) => {
      const chip = make("button", "chip");
      chip.type = "button";
      chip.style.setProperty("--expert", expert.colour);
      chip.title = "Mean weight over the whole text. Click: only this one; shift-click: add it.";
      chip.append(make("span", "glyph", expert.glyph), make("span", "name", expert.name),
        make("span", "share"));
      chip.addEventListener("click", (event) => act.solo(k, event.shiftKey));
      chip.addEventListener("pointerenter", () => act.hover(k));
      chip.addEventListener("pointerleave", () => act.hover(NONE));
      return chip;
    });
    chips.replaceChildren(...buttons);
    show();
  }

  function show() {
    const shown = new Set(view.inView());
    const shares = view.atLayer(view.profile(NONE, NONE), ALL_LAYERS);
    buttons.forEach((chip, k) => {
      const mean = shares[k] * view.scale;
      say(chip.lastChild, view.areShares() ? (100 * mean).toFixed(0) + " %" : fixed(mean, 2));
      chip.setAttribute("aria-pressed", String(view.solo.has(k)));
      chip.classList.toggle("dim", view.colour !== "entropy" && !shown.has(k));
    });
    all.hidden = !view.solo.size;
  }

  return { node, build, show };
}

function makeTooltip(view) {
  const node = make("div", "tooltip");
  node.hidden = true;
  let timer = 0;
  let shown = "";

  function hide() {
    clearTimeout(timer);
    node.hidden = true;
    shown = "";
  }

  function follow(event, token, layer) {
    if (!event || token < 0 || event.buttons) return hide();
    const { clientX, clientY } = event;
    const cell = token + ":" + layer;
    if (cell === shown) return place(clientX, clientY);
    clearTimeout(timer);
    const open = () => {
      shown = cell;
      fill(token, layer);
      node.hidden = false;
      place(clientX, clientY);
    };
    if (node.hidden) timer = setTimeout(open, TOOLTIP_DELAY);
    else open();
  }

  function fill(token, layer) {
    const head = make("div", "head");
    const word = make("strong");
    appendAlone(word, view.data.tokens[token]);
    const where = layer < 0 ? "all layers" : "layer " + view.data.layers[layer];
    head.append(word, make("span", "", `${view.nameOf(token)} · ${where}`));
    const weights = view.weightsOf(token, layer);
    const best = Array.from({ length: view.K }, (_, k) => k)
      .sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a])).slice(0, 3);
    const lines = best.map((k) => {
      const expert = view.data.experts[k];
      const line = make("div", "line");
      line.style.setProperty("--expert", expert.colour);
      line.append(make("span", "glyph", expert.glyph), make("span", "name", expert.name),
        make("span", "value", fixed(weights[k], 2)));
      return line;
    });
    if (view.colour === "entropy") lines.unshift(entropyLine(token, layer));
    const said = wordsOf(view, token, token, layer).map((text) => make("p", "note", text));
    node.replaceChildren(head, ...lines, ...said);
  }

  function entropyLine(token, layer) {
    const line = make("div", "line entropy");
    const entropy = view.entropyAt(token, layer).toFixed(2);
    line.append(make("span"), make("span", "name", "routing entropy"),
      make("span", "value", `${entropy} of ${view.mostEntropy().toFixed(2)} nats`));
    return line;
  }

  // Beside the pointer, inside the window.
  function place(x, y) {
    const { offsetWidth: width, offsetHeight: height } = node;
    const left = x + 14 + width > innerWidth ? x - width - 10 : x + 14;
    const top = y + 18 + height > innerHeight ? y - height - 10 : y + 18;
    node.style.left = Math.max(4, left) + "px";
    node.style.top = Math.max(4, top) + "px";
  }

  addEventListener("scroll", hide, { capture: true, passive: true });
  return { node, hide, follow };
}
