// The composer: mixer, overrides and presets, joined into one plan. The page's other parts learn of
// it by the event lmoe:plan and find the newest as window.lmoePlan.

const KEPT_PLAN = "lmoe-studio-plan";
const KEPT_PRESETS = "lmoe-studio-presets";
const MOST_PRESETS = 50;

const root = element.querySelector(".composer");
const state = { experts: [], mixer: neutralMixer(), entries: [] };
const mixer = makeMixer(state, changed);
const overrides = makeOverrides(state, changed);
const presets = makePresets();

mixer.add.addEventListener("click", () => {
  const names = state.experts.map((expert) => expert.name);
  const made = mixerOverrides(state.mixer, names);
  const { mode, renormalise } = state.mixer;
  Object.assign(state.mixer, neutralMixer(), { mode, renormalise });
  mixer.show();
  overrides.add(made);
});

// What is applied, top to bottom, and what keeps it from being read.
function readPlan() {
  const plan = [];
  for (const entry of state.entries) {
    if (!entry.on) continue;
    try {
      plan.push(readEntry(entry));
    } catch (error) {
      return { overrides: plan, problem: `Override ${plan.length + 1}: ${error.message}.` };
    }
  }
  const names = state.experts.map((expert) => expert.name);
  plan.push(...mixerOverrides(state.mixer, names).map(tidy));
  return { overrides: plan, problem: "" };
}

function changed() {
  const { overrides: plan, problem } = readPlan();
  window.lmoePlan = { overrides: plan, signature: signatureOf(plan) };
  window.dispatchEvent(new CustomEvent("lmoe:plan"));
  props.value = { ...window.lmoePlan, problem };
  keep(KEPT_PLAN, { entries: state.entries, mixer: state.mixer, plan });
}

// What the browser keeps; a browser that keeps nothing is no reason to stop.
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch { /* full, or forbidden */ }
}

function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

// Takes over a plan as it was kept; what is missing or odd in it becomes neutral.
function take(saved) {
  const blank = neutralMixer();
  const given = saved?.mixer ?? {};
  const list = (value) => (Array.isArray(value) ? value.filter((item) => typeof item === "string") : []);
  state.mixer = {
    ...blank,
    mode: given.mode in blank.values ? given.mode : blank.mode,
    renormalise: given.renormalise !== false,
    bypass: given.bypass === true,
    values: Object.fromEntries(Object.keys(NEUTRAL).map((mode) => [mode, { ...given.values?.[mode] }])),
    mute: list(given.mute),
    solo: list(given.solo),
  };
  const isEntry = (entry) => entry?.override?.operation in OPERATION_NAMES && typeof entry.layers === "string";
  state.entries = Array.isArray(saved?.entries) ? saved.entries.filter(isEntry) : [];
}

function makePresets() {
  const node = make("div", "presets");
  const select = make("select");
  select.setAttribute("aria-label", "Preset");
  const name = textField("", "name of a new preset", "Name of a new preset");
  name.maxLength = 60;
  const load = pressable("Load", "Load the preset");
  const save = pressable("Save", "Save mixer and overrides in this browser");
  const remove = pressable("Delete", "Delete the preset");
  const clear = quiet("clear everything", () => show(null));
  node.append(make("h4", "", "Presets"), select, load, remove, name, save, clear);

  function list() {
    const saved = kept(KEPT_PRESETS);
    return Array.isArray(saved) ? saved.filter((one) => typeof one?.name === "string") : [];
  }

  function build(chosen) {
    const names = list().map((one) => one.name);
    select.replaceChildren(...names.map((each) => make("option", "", each)));
    if (!names.length) select.append(make("option", "", "none saved"));
    select.disabled = load.disabled = remove.disabled = !names.length;
    if (chosen) select.value = chosen;
  }

  load.addEventListener("click", () => show(list().find((one) => one.name === select.value)));
  save.addEventListener("click", () => {
    const chosen = name.value.trim() || (select.disabled ? "" : select.value);
    if (!chosen) return name.focus();
    const others = list().filter((one) => one.name !== chosen);
    const { overrides: plan } = readPlan();
    const one = { name: chosen, entries: state.entries, mixer: state.mixer, plan };
    keep(KEPT_PRESETS, [...others, one].slice(-MOST_PRESETS));
    name.value = "";
    build(chosen);
  });
  name.addEventListener("keydown", (event) => event.key === "Enter" && save.click());
  remove.addEventListener("click", () => {
    keep(KEPT_PRESETS, list().filter((one) => one.name !== select.value));
    build();
  });
  return { node, build };
}

function show(saved) {
  take(structuredClone(saved));
  build();
}

function build() {
  mixer.build();
  overrides.build();
  changed();
}

function scopeOf({ tokens, layer }) {
  const scope = {};
  if (tokens) scope.tokens = tokens[0] === tokens[1] ? [tokens[0]] : { start: tokens[0], stop: tokens[1] + 1 };
  if (layer !== null) scope.layers = [layer];
  return scope;
}

// The selection gets what the mixer does, or a solo to begin with.
window.addEventListener("lmoe:scope", (event) => {
  const names = state.experts.map((expert) => expert.name);
  const made = mixerOverrides(state.mixer, names);
  const start = made.length ? made : [{ operation: "solo", weights: { [names[0]]: 1 } }];
  overrides.add(start.map((one) => ({ ...one, ...scopeOf(event.detail) })));
});

function experts() {
  if (JSON.stringify(props.experts) === JSON.stringify(state.experts)) return;
  state.experts = props.experts;
  root.replaceChildren(mixer.node, overrides.node, presets.node);
  presets.build();
  try {
    build();
  } catch {
    take(null); // what was kept is of no use
    build();
  }
}

function imported() {
  if (props.imported) show({ entries: props.imported.overrides.map(makeEntry) });
}

watch("experts", experts);
watch("imported", imported);
take(kept(KEPT_PLAN));
if (props.experts?.length) experts();
