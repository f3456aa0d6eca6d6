// Layers against tokens on a canvas, one pixel a cell, stretched by the browser.

const CIVIDIS = [
  [0, 32, 76], [0, 48, 110], [57, 72, 108], [87, 92, 109], [112, 113, 115],
  [138, 134, 120], [166, 157, 117], [196, 181, 108], [228, 207, 91], [255, 234, 70],
];
const AXIS = 20; // room for the token numbers below
const TICK_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];

function cividis(value) {
  const at = Math.min(Math.max(value, 0), 1) * (CIVIDIS.length - 1);
  const low = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[low].map((c, i) => Math.round(c + (CIVIDIS[low + 1][i] - c) * (at - low)));
}

const pixel = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
const between = (from, to, share) => from.map((c, i) => Math.round(c + (to[i] - c) * share));

function makeHeatmap(view, act) {
  const node = make("div", "heatmap");
  const layerTicks = make("div", "layer-ticks");
  const scroller = make("div", "scroller");
  const stage = make("div", "stage");
  const canvas = make("canvas");
  const column = make("div", "cross column");
  const row = make("div", "cross row");
  const tokenTicks = make("div", "token-ticks");
  canvas.setAttribute("role", "img");
  canvas.tabIndex = 0;
  stage.append(canvas, column, row, tokenTicks);
  scroller.append(stage);
  const plot = make("div", "plot");
  plot.append(layerTicks, scroller);
  const caption = makeCaption(view);
  node.append(caption.node, plot);
  let cellWidth = 1;
  let cellHeight = 1;

  function build() {
    canvas.width = view.T;
    canvas.height = view.L;
    canvas.setAttribute("aria-label",
      `Routing of ${view.T} tokens in ${view.L} layers; the arrow keys select in it as in the token list.`);
    fit();
    paint();
    moveCross();
  }

  function fit() {
    if (!view.data) return;
    cellWidth = Math.max(2, Math.min(26, scroller.clientWidth / view.T));
    cellHeight = Math.max(2, Math.min(16, (scroller.clientHeight - AXIS) / view.L));
    canvas.style.width = stage.style.width = cellWidth * view.T + "px";
    canvas.style.height = cellHeight * view.L + "px";
    tick(layerTicks, view.L, 15 / cellHeight, (l, label) => {
      label.textContent = view.data.layers[l];
      label.style.top = (view.L - l - 0.5) * cellHeight + "px";
    });
    tick(tokenTicks, view.T, 44 / cellWidth, (t, label) => {
      label.textContent = t;
      label.style.left = (t + 0.5) * cellWidth + "px";
    });
    moveCross();
  }

  function tick(parent, count, least, place) {
    const step = TICK_STEPS.find((candidate) => candidate >= least) ?? count;
    const labels = [];
    for (let index = 0; index < count; index += step) {
      const label = make("span");
      place(index, label);
      labels.push(label);
    }
    parent.replaceChildren(...labels);
  }

  // Colour by strength, once for each of 256 steps, so that painting is only looking up.
  function lookupTables(surface, ink) {
    const steps = Array.from({ length: 256 }, (_, i) => i / 255);
    const gained = (share) => Math.min(1, share * view.gain);
    if (view.colour === "entropy") {
      return [steps.map((share) => pixel(between(surface, ink, 0.8 * gained(share ** 2))))];
    }
    if (typeof view.colour === "number") {
      return view.rgb.map(() => steps.map((share) => pixel(cividis(gained(share)))));
    }
    return view.rgb.map((rgb) =>
      steps.map((share) => pixel(between(surface, rgb, gained(share) ** 0.8))));
  }

  function paint() {
    if (!view.data) return;
    const [surface, ink] = [themeColour(node, "surface"), themeColour(node, "ink")];
    const tables = lookupTables(surface, ink);
    caption.show(surface, ink);
    const image = new ImageData(view.T, view.L);
    const pixels = new Uint32Array(image.data.buffer);
    const experts = view.inView();
    const byEntropy = view.colour === "entropy";
    for (let t = 0; t < view.T; t++) {
      for (let l = 0; l < view.L; l++) {
        const offset = (t * view.L + l) * view.K;
        const at = (view.L - 1 - l) * view.T + t; // the first layer is at the bottom
        if (byEntropy) {
          pixels[at] = tables[0][Math.round(255 * view.entropyShare(t, l))];
        } else {
          const k = strongest(view.weights, offset, experts);
          pixels[at] = tables[k][view.weights[offset + k]];
        }
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function moveCross() {
    column.hidden = view.lo < 0;
    row.hidden = view.layer < 0;
    if (view.lo >= 0) {
      column.style.left = view.lo * cellWidth + "px";
      column.style.width = Math.max(2, (view.hi - view.lo + 1) * cellWidth) + "px";
      column.style.height = cellHeight * view.L + "px";
    }
    if (view.layer >= 0) {
      row.style.top = (view.L - 1 - view.layer) * cellHeight + "px";
      row.style.height = cellHeight + "px";
    }
  }

  function reveal(index) {
    const left = index * cellWidth;
    if (left < scroller.scrollLeft) scroller.scrollLeft = left - 40;
    else if (left + cellWidth > scroller.scrollLeft + scroller.clientWidth) {
      scroller.scrollLeft = left - scroller.clientWidth + 40;
    }
  }

  const cellUnder = (event) => {
    const rect = canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.min(Math.max(Math.floor(value), 0), most - 1);
    return [
      clamp((event.clientX - rect.left) / cellWidth, view.T),
      view.L - 1 - clamp((event.clientY - rect.top) / cellHeight, view.L),
    ];
  };
  let dragging = false;
  function pick(event) {
    const [token, layer] = cellUnder(event);
    act.setLayer(layer);
    act.pick(token, event.shiftKey);
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType !== "mouse") return;
    dragging = true;
    pick(event);
  });
  canvas.addEventListener("click", (event) => event.pointerType !== "mouse" && pick(event));
  canvas.addEventListener("pointermove", (event) => {
    const [token, layer] = cellUnder(event);
    if (dragging && event.buttons & 1) act.pick(token, true);
    else {
      dragging = false;
      act.point(event, token, layer);
    }
  });
  canvas.addEventListener("pointerleave", () => act.point(null));
  new ResizeObserver(fit).observe(scroller);

  return { node, canvas, build, paint, moveCross, reveal };
}

// What the colours mean, in words and as a ramp.
function makeCaption(view) {
  const node = make("div", "caption");
  const text = make("span", "text");
  const ramp = make("span", "ramp");
  const most = make("span", "end");
  node.append(text, make("span", "end", "0"), ramp, most);

  function show(surface, ink) {
    const [words, colours] = meaning(surface, ink);
    text.textContent = "Layers by tokens: " + words;
    ramp.style.background = `linear-gradient(90deg, ${colours.map((rgb) => `rgb(${rgb})`).join()})`;
    const top = (view.colour === "entropy" ? view.mostEntropy() : view.scale) / view.gain;
    most.textContent = (view.gain > 1 ? "≥ " : "") + Number(top.toFixed(2)) + (view.colour === "entropy" ? " nats" : "");
  }

  function meaning(surface, ink) {
    if (view.colour === "entropy") {
      return ["routing entropy in nats, the most where all experts weigh the same", [surface, between(surface, ink, 0.8)]];
    }
    const experts = view.inView();
    const { glyph, name } = view.data.experts[experts[0]];
    if (typeof view.colour === "number") return [`weight of ${glyph} ${name}`, CIVIDIS];
    const colours = [surface, experts.length > 1 ? between(surface, ink, 0.5) : view.rgb[experts[0]]];
    if (experts.length === 1) return [`weight of ${glyph} ${name}`, colours];
    return ["the strongest expert's colour, fuller with its weight", colours];
  }

  return { node, show };
}

// A colour of the page's theme as [r, g, b], read from a custom property. It is looked up once for
// each look of the page, because asking makes the browser lay the page out.
const themeColours = new Map();
function themeColour(node, name) {
  const key = document.body.className + " " + name;
  if (!themeColours.has(key)) themeColours.set(key, lookUpColour(node, name));
  return themeColours.get(key);
}

function lookUpColour(node, name) {
  const probe = make("i");
  probe.style.cssText = `position:absolute;visibility:hidden;color:var(--wb-${name})`;
  node.append(probe);
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return [r, g, b];
}
