// What a plan would make of the router's own weights, reckoned in the page. It follows
// routing/apply.py, with two liberties: the weights come in steps of 1/255, and the router is taken
// to be a softmax. The text, and with it the router's later choices, would change as well.

const FAINT = 1 / 1024; // stands for a probability too small for its step

// How each operation changes one token's weights at one layer, in place.
const OPERATIONS = {
  pin: (row, one) => setTo(row, one.weights, one.renormalise),
  solo: (row, one) => setTo(row, one.weights, false),
  uniform: (row, one) => setTo(row, Object.keys(one.weights).length ? one.weights : null, true),
  bypass: (row) => row.fill(0),
  ban: (row, one) => multiply(row, one),
  boost: (row, one) => multiply(row, one),
  top_k: (row, one) => keepLargest(row, one),
  bias: (row, one) => decideAnew(row, 1, one.amounts, one.strength),
  temperature: (row, one) => decideAnew(row, 1 + one.strength * (1 / one.value - 1), null, 0),
};
const ON_LOGITS = new Set(["bias", "temperature"]);

function setTo(row, weights, renormalise) {
  const given = weights ? row.names.map((name) => weights[name] ?? 0) : row.names.map(() => 1);
  const sum = renormalise ? given.reduce((a, b) => a + b, 0) || 1 : 1;
  given.forEach((weight, k) => (row[k] = weight / sum));
}

// Plain loops from here on: with hundreds of tokens, anything else is felt under the hand.
function sumOf(row) {
  let sum = 0;
  for (let k = 0; k < row.length; k++) sum += Math.abs(row[k]);
  return sum;
}

function keepSum(row, before) {
  const after = sumOf(row);
  for (let k = 0; k < row.length; k++) row[k] *= after > 1e-20 ? before / after : 0;
}

function multiply(row, one) {
  const before = sumOf(row);
  for (let k = 0; k < row.length; k++) row[k] *= one.factors[k];
  if (one.renormalise) keepSum(row, before);
}

function keepLargest(row, one) {
  const before = sumOf(row);
  const order = [...row.keys()].sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]));
  for (const k of order.slice(one.value)) row[k] = 0;
  if (one.renormalise) keepSum(row, before);
}

function decideAnew(row, power, amounts, strength) {
  const before = sumOf(row);
  for (let k = 0; k < row.length; k++) {
    row[k] = Math.max(row[k], FAINT) ** power * Math.exp(strength * (amounts?.[k] ?? 0));
  }
  keepSum(row, before);
}

// Whether a place is in a list, or in a span without its end.
const holds = (places, place) => Array.isArray(places)
  ? places.includes(place)
  : places.start <= place && (places.stop == null || place < places.stop);

// For each token, whether an override's scope holds it.
function tokensInScope(view, scope) {
  const generated = Array.from({ length: view.T }, (_, t) => Boolean(view.flags[t] & GENERATED));
  if (scope === "all") return generated.fill(true);
  if (scope === "generated") return generated;
  if (scope === "prompt") return generated.map((is) => !is);
  if (scope.text !== undefined || scope.regex !== undefined) {
    return tokensMatching(view.data.tokens, generated, patternOf(scope));
  }
  let step = -1;
  return generated.map((is, t) => {
    if (is) step++;
    return scope.steps === undefined ? holds(scope, t) : is && holds(scope.steps, step);
  });
}

function patternOf(scope) {
  try {
    return scope.regex === undefined
      ? new RegExp(scope.text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "g")
      : new RegExp(scope.regex, "gu");
  } catch {
    return null; // sound for Python but not here: no preview of it
  }
}

// A prompt token that a match overlaps; a generated one from which on a match is complete.
function tokensMatching(tokens, generated, pattern) {
  if (!pattern) return generated.map(() => false);
  const spans = [...tokens.join("").matchAll(pattern)]
    .map((match) => [match.index, match.index + match[0].length]);
  let stop = 0;
  return tokens.map((text, t) => {
    const start = stop;
    stop += text.length;
    return spans.some(([from, to]) => generated[t]
      ? start < to && to <= stop
      : from < stop && start < to);
  });
}

// An override with what the loops need looked up once.
function prepared(view, one) {
  const names = view.data.experts.map((expert) => expert.name);
  const full = { weights: {}, tokens: "all", layers: null, strength: 1, renormalise: true, ...one };
  return {
    ...full,
    amounts: names.map((name) => full.weights[name]),
    factors: Float32Array.from(names, (name) => full.weights[name] ?? 1),
    inTokens: tokensInScope(view, full.tokens),
    inLayers: view.data.layers.map((layer) => full.layers === null || holds(full.layers, layer)),
  };
}

function applyOverride(view, weights, touched, one) {
  const row = new Float32Array(view.K);
  row.names = view.data.experts.map((expert) => expert.name);
  const change = OPERATIONS[one.operation];
  const share = ON_LOGITS.has(one.operation) ? 1 : one.strength;
  for (let t = 0; t < view.T; t++) {
    if (!one.inTokens[t]) continue;
    for (let l = 0; l < view.L; l++) {
      if (!one.inLayers[l]) continue;
      const start = (t * view.L + l) * view.K;
      for (let k = 0; k < view.K; k++) row[k] = weights[start + k];
      change(row, one);
      for (let k = 0; k < view.K; k++) weights[start + k] += share * (row[k] - weights[start + k]);
      touched[t * view.L + l] = 1;
    }
  }
}

// The router's own weights of the run, 0..1, decoded once a trace.
function ownWeights(view) {
  if (view.ownOf !== view.data) {
    const bytes = decodeBytes(view.data.own ?? view.data.weights);
    view.own = Float32Array.from(bytes, (byte) => (byte / 255) * view.data.scale);
    view.ownOf = view.data;
  }
  return view.own.slice();
}

// Lets a view show what the overrides would make of its trace.
function previewPlan(view, overrides) {
  const weights = ownWeights(view);
  const touched = new Uint8Array(view.T * view.L);
  const steps = overrides.filter((one) => (one.strength ?? 1) > 0).map((one) => prepared(view, one));
  for (const isFirst of [true, false]) {
    for (const one of steps) {
      if (ON_LOGITS.has(one.operation) === isFirst) applyOverride(view, weights, touched, one);
    }
  }
  let scale = 1;
  for (let i = 0; i < weights.length; i++) if (weights[i] > scale) scale = weights[i];
  const bytes = new Uint8ClampedArray(weights.length); // rounds, and cuts off below 0
  for (let i = 0; i < weights.length; i++) bytes[i] = (weights[i] / scale) * 255;
  view.setWeights(bytes, scale, touched, true);
}
