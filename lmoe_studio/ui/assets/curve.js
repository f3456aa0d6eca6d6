// A plot of values by step. It is drawn at the size it has, whenever it gets values or another size.

const CURVE = { height: 200, left: 44, right: 22, top: 8, bottom: 20, apart: 13 };

function drawn(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Round numbers from `from` or less to `to` or more, about so many; none closer than `least`.
function ticksOver(from, to, about, least = 0) {
  const rough = (to - from) / Math.max(1, about);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(least, power * [1, 2, 5, 10].find((times) => times * power >= 0.999 * rough));
  const first = Math.floor(from / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(to / step - 1e-9));
  const decimals = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toFixed(decimals)));
}

// The value that a line has at a step: its last one until then.
function valueAt(points, step) {
  let known;
  for (const [at, value] of points) {
    if (at > step) break;
    known = value;
  }
  return known;
}

function makeCurve() {
  const node = make("figure", "curve");
  const title = make("h4");
  const plot = drawn("svg", { role: "img", tabindex: "0" });
  const legend = make("ul", "legend");
  node.append(title, plot, legend);
  let curve = null;
  let steps = 1;
  let at = null; // the step that is pointed at
  let places = null; // x of a step and back

  const allSteps = () => [...new Set(curve.lines.flatMap(({ points }) => points.map(([step]) => step)))].sort((a, b) => a - b);
  const written = (value) => {
    if (value === undefined) return "–";
    return curve.is_share ? Math.round(100 * value) + " %" : value.toFixed(2);
  };

  function showLegend() {
    say(title, at === null ? curve.title : `${curve.title}, at step ${at.toLocaleString("en")}`);
    const items = curve.lines.map((line) => {
      const item = make("li", line.is_reference ? "reference" : "");
      item.style.setProperty("--expert", line.colour);
      const name = make("span", "name", line.name);
      name.title = line.name;
      const value = make("span", "value", written(valueAt(line.points, at ?? Infinity)));
      item.append(line.glyph ? make("span", "glyph", line.glyph) : make("i"), name, value);
      return item;
    });
    legend.replaceChildren(...items);
    plot.setAttribute("aria-label", `${curve.title}: ` + items.map((item) => [...item.querySelectorAll(".name, .value")].map((part) => part.textContent).join(" ")).join(", "));
  }

  // Letters at the ends of lines, moved apart where lines end close to each other.
  function drawLetters(x, y) {
    const ends = curve.lines
      .filter(({ glyph, points }) => glyph && points.length)
      .map((line) => ({ line, x: x(line.points.at(-1)[0]) + 6, y: y(line.points.at(-1)[1]) }))
      .sort((a, b) => a.y - b.y);
    const lowest = CURVE.height - CURVE.bottom;
    if (ends.length * CURVE.apart > lowest) return [];
    ends.forEach((end, i) => (end.y = Math.max(end.y, i ? ends[i - 1].y + CURVE.apart : CURVE.top)));
    for (let i = ends.length - 1; i >= 0; i--) {
      ends[i].y = Math.min(ends[i].y, i === ends.length - 1 ? lowest : ends[i + 1].y - CURVE.apart);
    }
    return ends.map(({ line, x, y }) => drawn("text", { x, y: y + 4, class: "letter" }, line.glyph));
  }

  function draw() {
    const width = plot.clientWidth;
    if (!curve || width < CURVE.left + CURVE.right + 20) return; // nothing to see of it
    const values = curve.lines.flatMap(({ points }) => points.map(([, value]) => value));
    const low = curve.is_share || !values.length ? 0 : Math.min(...values);
    const high = values.length ? Math.max(...values) : 1;
    const upwards = ticksOver(low, Math.max(high, low + 1e-3), 4);
    const onwards = ticksOver(0, steps, Math.min(8, width / 70), 1).filter((step) => step <= steps);
    const [bottom, top] = [upwards[0], upwards.at(-1)];
    const span = width - CURVE.left - CURVE.right;
    const x = (step) => CURVE.left + (span * step) / steps;
    const y = (value) => CURVE.height - CURVE.bottom - ((CURVE.height - CURVE.bottom - CURVE.top) * (value - bottom)) / (top - bottom);
    places = { x, back: (px) => ((px - CURVE.left) * steps) / span };
    const grid = upwards.flatMap((value) => [
      drawn("line", { x1: CURVE.left, x2: width - CURVE.right, y1: y(value), y2: y(value) }),
      drawn("text", { x: CURVE.left - 6, y: y(value) + 4, "text-anchor": "end" }, curve.is_share ? Math.round(100 * value) + " %" : String(value)),
    ]);
    const below = onwards.map((step) => drawn("text", { x: x(step), y: CURVE.height - 4, "text-anchor": "middle" }, step.toLocaleString("en")));
    const lines = curve.lines.map((line) => {
      const [first, ...rest] = line.points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`);
      const path = first ? `M${first}` + (rest.length ? `L${rest.join(" ")}` : "h0") : "";
      return drawn("path", { d: path, stroke: line.colour, class: line.is_reference ? "reference" : line.glyph ? "expert" : "" });
    });
    const pointer = at === null ? [] : [drawn("line", { class: "pointer", x1: x(at), x2: x(at), y1: CURVE.top, y2: CURVE.height - CURVE.bottom })];
    plot.replaceChildren(...grid, ...below, ...lines, ...drawLetters(x, y), ...pointer);
  }

  function pointAt(step) {
    at = step;
    showLegend();
    draw();
  }

  plot.addEventListener("pointermove", (event) => {
    const near = places && allSteps();
    if (!near?.length) return;
    const step = places.back(event.clientX - plot.getBoundingClientRect().left);
    pointAt(near.reduce((best, one) => (Math.abs(one - step) < Math.abs(best - step) ? one : best)));
  });
  plot.addEventListener("pointerleave", () => pointAt(null));
  plot.addEventListener("blur", () => pointAt(null));
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const all = allSteps();
    const place = at === null ? all.length - 1 : all.findIndex((step) => step >= at) + by;
    pointAt(all[Math.min(Math.max(place, 0), all.length - 1)]);
  });
  new ResizeObserver(draw).observe(plot);

  function show(shown, ofSteps) {
    curve = shown;
    steps = Math.max(1, ofSteps);
    node.id = shown.id;
    showLegend();
    draw();
  }

  return { node, show };
}
