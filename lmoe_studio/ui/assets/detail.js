// The side panel: numbers for the selected tokens at the selected layer.

function makeDetail(view, act) {
  const node = make("aside", "detail");
  node.setAttribute("aria-label", "Details of the selection");
  const title = make("div", "title");
  const place = make("div", "place");
  const facts = make("dl", "facts");
  const said = make("div", "said");
  const weights = section("Routing weights");
  const bars = make("div", "bars");
  const note = make("p", "note");
  const noted = make("p", "note noted");
  const key = make("p", "note key");
  weights.append(bars, note, key, noted);
  const layers = section("Over layers");
  const profile = make("canvas", "profile");
  const axis = make("div", "axis");
  profile.setAttribute("role", "img");
  layers.append(profile, axis);
  const next = section("Most likely here");
  const ranking = make("ol", "ranking");
  next.append(ranking);
  const override = make("button", "toggle override", "Override selection…");
  override.type = "button";
  override.title = "A new override for these tokens at this layer";
  override.addEventListener("click", () => act.override());
  node.append(title, place, facts, said, override, weights, layers, next);
  let rows = [];
  let [least, most] = [0, 1]; // weights at the ends of a bar
  let profileSize = [0, 0]; // known from when it changed: asking makes the browser lay the page out

  function section(heading) {
    const part = make("section");
    part.append(make("h4", "", heading));
    return part;
  }

  function build() {
    bars.classList.toggle("with-norms", view.data.has_contributions);
    rows = view.data.experts.map((expert, k) => {
      const row = make("div", "bar");
      const glyph = make("span", "glyph", expert.glyph);
      const fill = make("i");
      const track = make("span", "track");
      const value = make("span", "value");
      const norm = make("span", "norm");
      row.style.setProperty("--expert", expert.colour);
      track.append(fill);
      row.append(glyph, make("span", "name", expert.name), track, value, norm);
      row.addEventListener("pointerenter", () => act.hover(k));
      row.addEventListener("pointerleave", () => act.hover(NONE));
      return { row, fill, value, norm };
    });
    const head = make("div", "bar head");
    head.append(make("span"), make("span"), make("span"), make("span", "value", "weight"),
      make("span", "norm", "update"));
    bars.replaceChildren(...(view.data.has_contributions ? [head] : []), ...rows.map((r) => r.row));
    show();
  }

  function show() {
    const whole = view.lo < 0;
    const single = !whole && view.lo === view.hi;
    showTitle(whole, single);
    showFacts(whole, single);
    showWords(whole);
    const values = view.profile(view.lo, view.hi);
    showBars(view.atLayer(values, view.layer));
    showOwn();
    drawProfile(values);
    override.hidden = !act.override;
    next.hidden = !single || !view.data.ranks[view.lo];
    if (!next.hidden) showRanking(view.lo);
  }

  function showTitle(whole, single) {
    title.replaceChildren();
    title.classList.toggle("text", !whole);
    if (whole) title.append("Whole text");
    else if (single) appendAlone(title, view.data.tokens[view.lo]);
    else appendVisible(title, view.data.tokens.slice(view.lo, Math.min(view.hi + 1, view.lo + 60)).join(""));
    const layer = view.layer < 0 ? "mean of all layers" : "layer " + view.data.layers[view.layer];
    const tokens = whole
      ? `mean of ${view.T.toLocaleString("en")} tokens`
      : single
        ? view.nameOf(view.lo)
        : `tokens ${view.lo} to ${view.hi}, mean of ${view.hi - view.lo + 1}`;
    place.textContent = `${tokens} · ${layer}`;
  }

  function showWords(whole) {
    const [lo, hi] = whole ? [0, view.T - 1] : [view.lo, view.hi];
    said.replaceChildren(...wordsOf(view, lo, hi, view.layer).map((text) => make("p", "", text)));
    noted.classList.add("stale"); // until the Studio has told of this selection
  }

  function showFacts(whole, single) {
    facts.replaceChildren();
    const [lo, hi] = whole ? [0, view.T - 1] : [view.lo, view.hi];
    const entries = single ? factsOfOne(view.lo) : factsOfMany(lo, hi);
    entries.push(["routing entropy", nats(view.meanEntropy(lo, hi, view.layer))]);
    for (const [name, value] of entries) {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", value));
      facts.append(pair);
    }
  }

  const nats = (value) => (value === null ? "–" : value.toFixed(2) + " nats");

  function factsOfOne(token) {
    const logprob = view.data.logprobs[token];
    if (logprob === null) return [];
    return [
      ["probability", percent(Math.exp(logprob))],
      ["rank", view.data.ranks[token].toLocaleString("en")],
      ["log-prob", nats(logprob)],
      ["next-token entropy", nats(view.data.entropies[token])],
    ];
  }

  function factsOfMany(lo, hi) {
    const mean = view.meanLogprob(lo, hi);
    if (mean === null) return [];
    return [["mean log-prob", nats(mean)], ["perplexity", perplexity(mean)]];
  }

  // What the columns and the line in each bar are.
  function showKey(hasOwn) {
    const line = hasOwn
      ? "Line in a bar: the router's own weight, without the plan. "
      : view.areShares() ? `Line in a bar: an even share, 1/${view.K}. ` : "";
    const below = view.below ? "A weight below 0 takes an expert's update away; colours show those above 0. " : "";
    const update = "Weight: what an expert's update is multiplied by. Update: the norm of what it then adds. ";
    say(key, ((view.data.has_contributions ? update : "") + line + below).trim());
  }

  // Bars begin at 0, which is not the left end where there are weights below it.
  function showBars(values) {
    least = view.scale * Math.min(0, ...values);
    most = view.scale * Math.max(1 / view.scale, ...values);
    bars.style.setProperty("--zero", placeOf(0));
    // A line where every expert would stand if all had the same weight.
    bars.style.setProperty("--even", placeOf(1 / view.K));
    bars.classList.toggle("uneven", !view.areShares());
    bars.classList.toggle("signed", least < 0);
    rows.forEach((row, k) => {
      const weight = values[k] * view.scale;
      row.fill.style.marginLeft = placeOf(Math.min(0, weight));
      row.fill.style.width = ((100 * Math.abs(weight)) / (most - least)).toFixed(1) + "%";
      say(row.value, fixed(weight, 2));
      row.value.classList.add("rough");
      row.norm.textContent = "";
    });
    note.textContent = view.previewing ? "Preview: what the plan would make of these weights." : "";
  }

  const placeOf = (weight) =>
    Math.min(100, Math.max(0, (100 * (weight - least)) / (most - least))) + "%";

  // Where a plan changed weights, a mark in each bar for what the router alone would have given.
  function showOwn() {
    const own = view.touched && view.atLayer(view.ownProfile(view.lo, view.hi), view.layer);
    bars.classList.toggle("with-own", Boolean(own));
    rows.forEach(({ row }, k) => {
      const weight = own ? own[k] * view.data.scale : 0;
      row.style.setProperty("--own", placeOf(weight));
      row.title = view.data.experts[k].name + (own ? `; the router alone: ${fixed(weight, 2)}` : "");
    });
    showKey(Boolean(own));
  }

  // Exact numbers from the server take the place of those in steps of 1/255.
  function showExact(cell) {
    if (cell.gone) {
      note.textContent = "Exact values are gone; trace the text again.";
      return;
    }
    cell.weights.forEach((weight, k) => {
      rows[k].value.textContent = fixed(weight, 4);
      rows[k].value.classList.remove("rough");
      if (cell.contributions) rows[k].norm.textContent = cell.contributions[k].toFixed(3);
    });
    noted.classList.remove("stale");
    noted.textContent = wordsOfNotes(cell.notes, view.data.experts);
    if (cell.token_id !== null) place.textContent += ` · id ${cell.token_id}`;
  }

  function drawProfile(values) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = profileSize;
    if (!width) return;
    profile.width = width * ratio;
    profile.height = height * ratio;
    const context = profile.getContext("2d");
    context.scale(ratio, ratio);
    const step = width / view.L;
    const [up, down] = mostAtOneLayer(values);
    const zero = (height * up) / (up + down); // weights below 0 hang from here
    for (let l = 0; l < view.L; l++) {
      let [top, bottom] = [zero, zero];
      for (let k = 0; k < view.K; k++) {
        const part = (values[l * view.K + k] / (up + down)) * height;
        context.fillStyle = view.data.experts[k].colour;
        context.globalAlpha = view.layer < 0 || view.layer === l ? 1 : 0.45;
        context.fillRect(l * step, part < 0 ? bottom : top - part, Math.max(1, step - 1), Math.abs(part));
        if (part < 0) bottom -= part;
        else top -= part;
      }
    }
    axis.replaceChildren(
      make("span", "", "layer " + view.data.layers[0]),
      make("span", "", String(view.data.layers[view.L - 1])));
    profile.setAttribute("aria-label", "Weights of all experts, layer by layer");
  }

  // The largest sums of weights above 0, and of those below it.
  function mostAtOneLayer(values) {
    let [up, down] = [1 / view.scale, 0];
    for (let l = 0; l < view.L; l++) {
      const at = values.subarray(l * view.K, (l + 1) * view.K);
      up = Math.max(up, at.reduce((sum, weight) => sum + Math.max(weight, 0), 0));
      down = Math.max(down, at.reduce((sum, weight) => sum - Math.min(weight, 0), 0));
    }
    return [up, down];
  }

  function showRanking(token) {
    const k = view.alternatives.length / view.T;
    const items = [];
    for (let i = 0; i < k; i++) {
      const text = view.data.strings[view.alternatives[token * k + i]];
      const probability = Math.exp(-view.alternativeLogprobs[token * k + i] / 1000);
      const item = make("li", view.data.ranks[token] === i + 1 ? "actual" : "");
      const word = make("span", "word");
      appendAlone(word, text);
      const fill = make("i");
      fill.style.width = (100 * probability).toFixed(1) + "%";
      const track = make("span", "track");
      track.append(fill);
      item.append(word, track, make("span", "value", percent(probability)));
      items.push(item);
    }
    ranking.replaceChildren(...items);
  }

  profile.addEventListener("click", (event) => {
    const rect = profile.getBoundingClientRect();
    const layer = Math.floor(((event.clientX - rect.left) / rect.width) * view.L);
    act.setLayer(Math.min(Math.max(layer, 0), view.L - 1));
  });
  new ResizeObserver(() => {
    profileSize = [profile.clientWidth, profile.clientHeight];
    if (view.data) drawProfile(view.profile(view.lo, view.hi));
  }).observe(profile);

  return { node, build, show, showExact };
}

function perplexity(meanLogprob) {
  const value = Math.exp(-meanLogprob);
  return value < 1000 ? value.toFixed(value < 10 ? 2 : 1) : value.toExponential(1);
}

function percent(share) {
  const value = 100 * share;
  return (value >= 9.95 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : "<0.1") + " %";
}
