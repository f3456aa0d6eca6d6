// Plans as the composer holds them: plain data, and nothing of the page.

const NEUTRAL = { multiply: 1, set: 0, add: 0 };
const MIXER_RANGES = { multiply: [-1, 4], set: [-1, 4], add: [-20, 20] };
const SLIDER_RANGES = { multiply: [0, 2], set: [0, 1], add: [-8, 8] };

const neutralMixer = () => ({
  mode: "multiply", renormalise: true, bypass: false,
  values: { multiply: {}, set: {}, add: {} }, mute: [], solo: [],
});

const clampTo = ([low, high], value) => Math.min(Math.max(value, low), high);

// The overrides that a mixer stands for; none while it is neutral.
function mixerOverrides(mixer, names) {
  if (mixer.bypass) return [{ operation: "bypass" }];
  const { mode, solo, mute } = mixer;
  const isHeard = (name) => !mute.includes(name) && (!solo.length || solo.includes(name));
  const heard = names.filter(isHeard);
  const silent = names.filter((name) => !isHeard(name));
  const values = mixer.values[mode];
  const moved = names.filter((name) => (values[name] ?? NEUTRAL[mode]) !== NEUTRAL[mode]);
  const chosen = Object.fromEntries(moved.filter(isHeard).map((name) => [name, values[name]]));
  const how = { renormalise: mode === "add" || mixer.renormalise };
  const isChosen = Object.keys(chosen).length > 0;
  if (mode === "set" && moved.length) {
    return [isChosen ? { operation: "pin", weights: chosen, ...how } : { operation: "bypass" }];
  }
  if (silent.length && heard.length === 1 && how.renormalise) {
    return [{ operation: "solo", weights: { [heard[0]]: 1 } }];
  }
  const overrides = [];
  const operation = mode === "add" ? "bias" : "boost";
  if (isChosen) overrides.push({ operation, weights: chosen, ...how });
  if (silent.length) {
    const weights = Object.fromEntries(silent.map((name) => [name, 0]));
    overrides.push({ operation: "ban", weights, ...how });
  }
  return overrides;
}

// Takes out of a mixer, and switches off in a list, what speaks of experts that are not among the
// names; gives their names.
function dropStrangers({ mixer, entries }, names) {
  const strangers = new Set();
  const isKnown = (name) => names.includes(name) || !strangers.add(name);
  for (const values of Object.values(mixer.values)) {
    for (const name of Object.keys(values)) if (!isKnown(name)) delete values[name];
  }
  mixer.solo = mixer.solo.filter(isKnown);
  mixer.mute = mixer.mute.filter(isKnown);
  for (const entry of entries) {
    if (!Object.keys(entry.override.weights ?? {}).every(isKnown)) entry.on = false;
  }
  return [...strangers];
}

// One way to write an override, so that equal ones read equal; what is at its default is left out.
function tidy(one) {
  const tidied = { operation: one.operation };
  if (one.weights && Object.keys(one.weights).length) tidied.weights = one.weights;
  if (one.value != null) tidied.value = one.value;
  if (one.layers != null) tidied.layers = one.layers;
  if (one.tokens != null && one.tokens !== "all") tidied.tokens = one.tokens;
  if (one.strength != null && one.strength !== 1) tidied.strength = one.strength;
  if (one.renormalise === false) tidied.renormalise = false;
  return tidied;
}

// "3", "0, 4-6" or "10-" as a plan says it: a list of numbers, or a span, whose end is not in it.
// Both ends of what is typed are. Raises an Error that says what was expected.
function readPlaces(text) {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  const spans = parts.map((part) => /^(\d{1,6})(?:\s*[-–]\s*(\d{1,6})?)?$/.exec(part));
  if (!parts.length || spans.includes(null)) throw new Error("expected numbers such as 3, 10-20 or 10-");
  const ranges = spans.map(([part, from, to]) =>
    [Number(from), to ? Number(to) : /[-–]/.test(part) ? null : Number(from)]);
  if (ranges.some(([from, to]) => to !== null && to < from)) throw new Error("a range ends before it begins");
  if (ranges.length === 1) {
    const [from, to] = ranges[0];
    if (to === null) return { start: from };
    return to === from ? [from] : { start: from, stop: to + 1 };
  }
  if (ranges.some(([, to]) => to === null)) throw new Error("an open range such as 10- stands alone");
  const places = ranges.flatMap(([from, to]) => Array.from({ length: to - from + 1 }, (_, i) => from + i));
  return [...new Set(places)].sort((a, b) => a - b);
}

// The same back as a text.
function writePlaces(places) {
  if (places == null) return "";
  if (!Array.isArray(places)) return places.start + "-" + (places.stop == null ? "" : places.stop - 1);
  const runs = [];
  for (const place of places) {
    const last = runs[runs.length - 1];
    if (last && place === last[1] + 1) last[1] = place;
    else runs.push([place, place]);
  }
  return runs.map(([from, to]) => (from === to ? from : from + "-" + to)).join(", ");
}

// The kind of a token scope and its text in the field beside it.
function writeScope(tokens) {
  if (tokens == null || typeof tokens === "string") return [tokens ?? "all", ""];
  if (tokens.text !== undefined) return ["text", tokens.text];
  if (tokens.regex !== undefined) return ["regex", tokens.regex];
  if (tokens.steps !== undefined) return ["steps", writePlaces(tokens.steps)];
  return ["positions", writePlaces(tokens)];
}

function readScope(kind, text) {
  if (kind === "steps") return { steps: readPlaces(text) };
  if (kind === "positions") return readPlaces(text);
  if (kind === "text" || kind === "regex") {
    if (!text) throw new Error("expected a text to look for");
    return { [kind]: text };
  }
  return kind;
}

// An entry of the list: an override, whether it is on, and the fields as they were typed.
function makeEntry(override) {
  const one = { strength: 1, renormalise: true, weights: {}, ...override };
  const [kind, what] = writeScope(one.tokens);
  return { on: true, override: one, layers: writePlaces(one.layers), kind, what };
}

// The override of an entry with what was typed read in.
function readEntry(entry) {
  const layers = entry.layers.trim() ? readPlaces(entry.layers) : null;
  return tidy({ ...entry.override, layers, tokens: readScope(entry.kind, entry.what) });
}

// A short name for some overrides; other ones have another, as good as always (53 bits).
function signatureOf(overrides) {
  let [a, b] = [0xdeadbeef, 0x41c6ce57];
  for (const character of JSON.stringify(overrides)) {
    const code = character.codePointAt(0);
    a = Math.imul(a ^ code, 2654435761);
    b = Math.imul(b ^ code, 1597334677);
  }
  return (a >>> 0).toString(36) + "-" + (b >>> 0).toString(36);
}
