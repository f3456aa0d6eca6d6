// What is shown: one trace, one selection, one way of colouring. Knows nothing of the page.

const ALL_LAYERS = -1;
const NONE = -1;
const SPECIAL = 1;
const GENERATED = 2;

function decodeBytes(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function decodeWords(text) {
  const bytes = decodeBytes(text);
  const words = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < words.length; i++) words[i] = bytes[2 * i] | (bytes[2 * i + 1] << 8);
  return words;
}

function decodeBits(text, count) {
  const bytes = decodeBytes(text);
  return Uint8Array.from({ length: count }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
}

// Numbers that came in even steps; null where none came.
function decodeSteps(steps, count) {
  if (!steps) return null;
  const { least, step, values } = steps;
  const found = new Float32Array(count).fill(least);
  if (values) decodeWords(values).forEach((n, i) => (found[i] = least + step * n));
  return found;
}

function makeView() {
  const view = {
    data: null, // the payload
    T: 0, L: 0, K: 0, // tokens, layers, experts
    own: null, // the router's own weights of the run, like weights; 255 stands for data.scale
    weights: null, // uint8 [token, layer, expert]; 255 stands for scale; 0 for what is below 0
    below: null, // the same of weights with their signs changed; null where none is below 0
    active: null, // [token, layer]: how many experts act; null where that says nothing
    mass: null, // [token, layer]: sum of the weights; null where active is
    scale: 1,
    mean: null, // the same over all layers, [token, expert]
    touched: null, // uint8 [token, layer]: where a plan changed something; null for nowhere
    goesOn: false, // what was loaded last is a longer view of what was there
    previewing: false, // the weights are what a plan would make of the run's
    layer: ALL_LAYERS, // an index into data.layers
    colour: "dominant", // "dominant", "entropy", or the index of one expert
    solo: new Set(), // experts that the legend has singled out
    hover: NONE, // the expert under the pointer in the legend
    gain: 1,
    glyphs: true,
    lo: NONE, hi: NONE, anchor: NONE, // selected tokens; NONE stands for the whole text
  };

  // A further view of the same run, or of one that goes on after it, keeps what is selected.
  view.load = (data) => {
    const { id, run } = view.data ?? {};
    view.goesOn = Boolean(run && data.run &&
      (run.series === data.run.series || (id && id === data.run.follows)));
    view.data = data;
    [view.T, view.L, view.K] = data.shape;
    view.show(data, false);
    view.own = data.own ? decodeBytes(data.own) : view.weights;
    view.ownBelow = data.own ? data.own_below && decodeBytes(data.own_below) : view.below;
    view.notes = readNotes(data.notes, view.T * view.L);
    view.flags = decodeBytes(data.flags);
    view.pieces = piecesIn(data.tokens);
    view.alternatives = decodeWords(data.alternatives);
    view.alternativeLogprobs = decodeWords(data.alternative_logprobs);
    view.rgb = data.experts.map((expert) =>
      [1, 3, 5].map((at) => parseInt(expert.colour.slice(at, at + 2), 16)));
    if (view.goesOn) return;
    view.layer = Math.min(view.layer, view.L - 1);
    view.solo.clear();
    view.hover = NONE;
    if (typeof view.colour === "number" && view.colour >= view.K) view.colour = "dominant";
    view.lo = view.hi = view.anchor = NONE;
  };

  // Weights over the tokens there are: those of the run, or a preview of others.
  view.show = ({ weights, below, scale, overridden, sites }, previewing) => {
    const cells = view.T * view.L;
    Object.assign(view, {
      scale,
      previewing,
      touched: overridden && decodeBits(overridden, cells),
      weights: decodeBytes(weights),
      below: below ? decodeBytes(below) : null,
      active: decodeSteps(sites?.active, cells),
      mass: decodeSteps(sites?.mass, cells),
      whole: null,
      entropies: null,
    });
    view.mean = meanOverLayers(view);
  };

  // Whether the weights of each token sum to 1, so that they are shares of it.
  view.areShares = () => !view.mass;

  view.isTouched = (token, layer) => {
    if (!view.touched) return false;
    const start = token * view.L;
    if (layer >= 0) return view.touched[start + layer] > 0;
    return view.touched.subarray(start, start + view.L).some(Boolean);
  };

  // What a token is called beside its text.
  view.nameOf = (token) => {
    const piece = view.pieces.get(token);
    const special = view.flags[token] & SPECIAL ? ", special" : "";
    const isPart = view.data.tokens[token] === INCOMPLETE;
    const part = piece ? `, part of '${visibleText(piece)}'` : isPart ? ", part of a character" : "";
    return `token ${token}${special}${part}`;
  };

  // Where the weights of a token at a layer begin, and in which array.
  view.rowsAt = (layer) => (layer < 0 ? view.mean : view.weights);
  view.offsetAt = (token, layer) =>
    (layer < 0 ? token : token * view.L + layer) * view.K;

  // Entropy of the routing in nats: of a token at a layer, or its mean over the layers.
  view.entropyAt = (token, layer) => {
    view.entropies ??= entropiesOf(view);
    return view.entropies[token * (view.L + 1) + (layer < 0 ? view.L : layer)];
  };
  view.mostEntropy = () => Math.log(Math.max(view.K, 1)); // where all experts weigh the same
  view.entropyShare = (token, layer) =>
    view.K < 2 ? 0 : view.entropyAt(token, layer) / view.mostEntropy();
  view.meanEntropy = (lo, hi, layer) => {
    let sum = 0;
    for (let t = lo; t <= hi; t++) sum += view.entropyAt(t, layer);
    return sum / Math.max(1, hi - lo + 1);
  };

  // Mean log-probability in nats of some tokens, those without one left out; null where all are.
  view.meanLogprob = (lo, hi) => {
    const known = view.data.logprobs.slice(lo, hi + 1).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };

  // The weight of each expert for a token, at a layer or as the mean of all layers.
  view.weightsOf = (token, layer) =>
    view.atLayer(view.profile(token, token), layer).map((weight) => weight * view.scale);

  // The experts that the colours speak of.
  view.inView = () => {
    if (view.hover >= 0) return [view.hover];
    if (typeof view.colour === "number") return [view.colour];
    if (view.solo.size) return [...view.solo];
    return Array.from({ length: view.K }, (_, k) => k);
  };

  // Weights of a token range by layer and expert, -1..1 of the scale, as a flat [layer, expert].
  view.profile = (lo, hi) => {
    if (lo >= 0) return meanOverTokens(view, view.weights, view.below, lo, hi);
    view.whole ??= meanOverTokens(view, view.weights, view.below, 0, view.T - 1);
    return view.whole;
  };

  // The same of the router's own weights, -1..1 of data.scale.
  view.ownProfile = (lo, hi) => {
    const [from, to] = lo < 0 ? [0, view.T - 1] : [lo, hi];
    return meanOverTokens(view, view.own, view.ownBelow, from, to);
  };

  // The weights at a layer of such a profile, or their mean over all layers.
  view.atLayer = (profile, layer) => {
    if (layer >= 0) return profile.slice(layer * view.K, (layer + 1) * view.K);
    const means = new Float32Array(view.K);
    for (let i = 0; i < profile.length; i++) means[i % view.K] += profile[i] / view.L;
    return means;
  };

  return view;
}

function meanOverTokens(view, weights, below, from, to) {
  const sums = new Float32Array(view.L * view.K);
  for (let t = from; t <= to; t++) {
    const start = t * sums.length;
    for (let i = 0; i < sums.length; i++) sums[i] += weights[start + i];
    if (below) for (let i = 0; i < sums.length; i++) sums[i] -= below[start + i];
  }
  const count = 255 * Math.max(1, to - from + 1);
  for (let i = 0; i < sums.length; i++) sums[i] /= count;
  return sums;
}

function meanOverLayers(view) {
  const { T, L, K, weights } = view;
  const mean = new Float32Array(T * K);
  for (let t = 0; t < T; t++) {
    for (let l = 0; l < L; l++) {
      const start = (t * L + l) * K;
      for (let k = 0; k < K; k++) mean[t * K + k] += weights[start + k];
    }
    for (let k = 0; k < K; k++) mean[t * K + k] /= Math.max(1, L);
  }
  return mean;
}

// The strongest of some experts in a row of weights.
function strongest(rows, offset, experts) {
  let best = experts[0];
  for (const k of experts) if (rows[offset + k] > rows[offset + best]) best = k;
  return best;
}

// Entropies [token, layer and, behind the last, their mean], in nats.
function entropiesOf({ T, L, K, weights }) {
  const found = new Float32Array(T * (L + 1));
  for (let t = 0; t < T; t++) {
    const start = t * (L + 1);
    for (let l = 0; l < L; l++) {
      found[start + l] = entropyOf(weights, (t * L + l) * K, K);
      found[start + L] += found[start + l] / L;
    }
  }
  return found;
}

// Entropy of a row of weights, scaled to sum to 1, in nats: 0 is one expert alone, log K is all alike.
function entropyOf(rows, offset, K) {
  let total = 0;
  for (let k = 0; k < K; k++) total += rows[offset + k];
  if (total === 0) return 0;
  let entropy = 0;
  for (let k = 0; k < K; k++) {
    const p = rows[offset + k] / total;
    if (p > 0) entropy -= p * Math.log(p);
  }
  return entropy;
}
