// The composer: mixer, overrides and presets, joined into one plan. The page's other parts learn of
// it by the event lmoe:plan and find the newest as window.lmoePlan.

const root = element.querySelector(".composer");
const state = { bank: "", experts: [], mixer: neutralMixer(), entries: [] };
const mixer = makeMixer(state, changed);
const overrides = makeOverrides(state, changed);
const history = makeHistory(root, (saved) => {
  take(saved);
  mixer.show();
  overrides.build();
  changed();
});
const presets = makePresets();
const note = make("p", "told");
note.setAttribute("role", "status");

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
  const { bank, entries, mixer } = state;
  history.note({ entries, mixer });
  window.lmoePlan = { bank, overrides: plan, signature: signatureOf(plan), problem };
  window.dispatchEvent(new CustomEvent("lmoe:plan"));
  props.value = window.lmoePlan;
  keepPlan({ bank, entries, mixer, plan });
}

// Takes over a plan as it was kept; what is missing or odd in it becomes neutral. What it says of
// experts that the bank does not have cannot hold: that is switched off, and said.
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
  const strangers = dropStrangers(state, state.experts.map((expert) => expert.name));
  note.textContent = !strangers.length ? "" :
    `Not applied: what this plan says of ${strangers.join(", ")}, as the bank ${state.bank} has no such expert.`;
}

function makePresets() {
  const node = make("div", "presets");
  const select = make("select");
  select.setAttribute("aria-label", "Preset");
  const name = textField("", "name of a new preset", "Name of a new preset");
  name.maxLength = 60;
  name.dataset.ownUndo = "";
  const load = pressable("Load", "Load the preset");
  const save = pressable("Save", "Save mixer and overrides in this browser");
  const remove = pressable("Delete", "Delete the preset");
  const clear = quiet("clear everything", () => show(null));
  node.append(make("h4", "", "Presets"), select, load, remove, name, save,
    history.undo, history.redo, clear);

  function build(chosen) {
    const names = keptPresets().map((one) => one.name);
    select.replaceChildren(...names.map((each) => make("option", "", each)));
    if (!names.length) select.append(make("option", "", "none saved"));
    select.disabled = load.disabled = remove.disabled = !names.length;
    if (chosen) select.value = chosen;
  }

  load.addEventListener("click", () => show(keptPresets().find((one) => one.name === select.value)));
  save.addEventListener("click", () => {
    const chosen = name.value.trim() || (select.disabled ? "" : select.value);
    if (!chosen) return name.focus();
    const { overrides: plan } = readPlan();
    keepPreset({ name: chosen, entries: state.entries, mixer: state.mixer, plan });
    name.value = "";
    build(chosen);
  });
  name.addEventListener("keydown", (event) => event.key === "Enter" && save.click());
  remove.addEventListener("click", () => {
    keep(KEPT_PRESETS, keptPresets().filter((one) => one.name !== select.value));
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

// Each bank has its own plan, which waits for it while another one is loaded.
function bankCame({ bank, experts }) {
  const isSame = bank === state.bank && JSON.stringify(experts) === JSON.stringify(state.experts);
  if (!bank || isSame) return;
  const left = state.bank !== bank && window.lmoePlan?.overrides.length ? state.bank : "";
  Object.assign(state, { bank, experts });
  history.restart();
  root.replaceChildren(note, mixer.node, overrides.node, presets.node);
  presets.build();
  try {
    show(keptPlan(bank));
  } catch {
    show(null); // what was kept is of no use
  }
  if (left) note.textContent = `The plan for ${left} is put aside until that bank is loaded again. ${note.textContent}`;
}

function imported() {
  if (props.imported) show({ entries: props.imported.overrides.map(makeEntry) });
}

watch("imported", imported);
onStudio(bankCame);
