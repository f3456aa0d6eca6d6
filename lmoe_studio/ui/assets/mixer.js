// The mixer: a row for each expert, and how its numbers are meant.

const MODES = {
  multiply: ["Multiply", "Each router weight is multiplied (boost)."],
  set: ["Set", "The router is not asked: these are the weights (pin). All at 0: nothing is set."],
  add: ["Add to logits", "Added to the router's logits before it decides (bias)."],
};

function makeMixer(state, changed) {
  const node = make("section", "mixer");
  node.setAttribute("aria-label", "Mixer");
  const modes = make("div", "modes");
  modes.setAttribute("role", "radiogroup");
  modes.setAttribute("aria-label", "What the numbers do");
  const renormalise = make("input");
  renormalise.type = "checkbox";
  const keep = make("label", "check");
  keep.append(renormalise, "Renormalise");
  const bypass = pressable("Bypass all", "No experts: the base model");
  const reset = quiet("reset all", () => update(() => Object.assign(state.mixer, neutralMixer(),
    { mode: state.mixer.mode, renormalise: state.mixer.renormalise })));
  const head = make("div", "head");
  head.append(make("h4", "", "Mixer"), modes, keep, bypass);
  const list = make("div", "rows");
  const says = make("p", "says");
  const add = make("button", "toggle", "Add the mixer as an override");
  add.type = "button";
  const foot = make("div", "foot");
  foot.append(add, reset);
  node.append(head, list, says, foot);
  let rows = [];

  function update(change) {
    change();
    show();
    changed();
  }

  for (const [mode, [name, hint]] of Object.entries(MODES)) {
    const button = pressable(name, hint);
    button.setAttribute("role", "radio");
    button.dataset.mode = mode;
    button.addEventListener("click", () => update(() => (state.mixer.mode = mode)));
    modes.append(button);
  }
  renormalise.addEventListener("change", () =>
    update(() => (state.mixer.renormalise = renormalise.checked)));
  bypass.addEventListener("click", () => update(() => (state.mixer.bypass = !state.mixer.bypass)));

  const valueOf = (name) => state.mixer.values[state.mixer.mode][name] ?? NEUTRAL[state.mixer.mode];

  function setValue(name, value) {
    const { mode } = state.mixer;
    if (value === NEUTRAL[mode]) delete state.mixer.values[mode][name];
    else state.mixer.values[mode][name] = value;
  }

  function toggle(names, name) {
    const at = names.indexOf(name);
    if (at < 0) names.push(name);
    else names.splice(at, 1);
  }

  function makeRow(expert) {
    const { name } = expert;
    const row = make("div", "row");
    row.style.setProperty("--expert", expert.colour);
    const mute = pressable("M", `Mute ${name}`);
    const solo = pressable("S", `Solo ${name}`);
    const slider = Object.assign(make("input"), { type: "range", step: 0.01 });
    const number = Object.assign(make("input"), { type: "number", step: 0.1 });
    slider.setAttribute("aria-label", name);
    number.setAttribute("aria-label", `${name}, number`);
    const back = quiet("reset", () => update(() => setValue(name, NEUTRAL[state.mixer.mode])));
    back.setAttribute("aria-label", `Reset ${name}`);
    mute.addEventListener("click", () => update(() => toggle(state.mixer.mute, name)));
    solo.addEventListener("click", () => update(() => toggle(state.mixer.solo, name)));
    slider.addEventListener("input", () => update(() => setValue(name, Number(slider.value))));
    number.addEventListener("input", () => {
      if (number.value === "" || !Number.isFinite(Number(number.value))) return;
      const value = clampTo(MIXER_RANGES[state.mixer.mode], Number(number.value));
      update(() => setValue(name, value));
    });
    number.addEventListener("blur", () => {
      delete row.dataset.shown; // an empty field gets its number back
      show();
    });
    const title = make("span", "name", name);
    title.title = expert.description;
    row.append(make("span", "glyph", expert.glyph), title, mute, solo, slider, number, back);
    return { name, row, mute, solo, slider, number, back };
  }

  function build() {
    rows = state.experts.map(makeRow);
    list.replaceChildren(...rows.map((each) => each.row));
    show();
  }

  function show() {
    const { mixer } = state;
    const names = state.experts.map((expert) => expert.name);
    for (const button of modes.children) {
      button.setAttribute("aria-checked", String(button.dataset.mode === mixer.mode));
    }
    renormalise.checked = mixer.mode === "add" || mixer.renormalise;
    renormalise.disabled = mixer.mode === "add";
    bypass.setAttribute("aria-pressed", String(mixer.bypass));
    node.classList.toggle("bypassed", mixer.bypass);
    rows.forEach(showRow);
    const overrides = mixerOverrides(mixer, names);
    add.disabled = !overrides.length;
    says.textContent = sayWhatHappens(mixer, names);
  }

  function showRow({ name, row, mute, solo, slider, number, back }) {
    const { mixer } = state;
    const value = valueOf(name);
    const isMuted = mixer.mute.includes(name);
    const isSoloed = mixer.solo.includes(name);
    mute.setAttribute("aria-pressed", String(isMuted));
    solo.setAttribute("aria-pressed", String(isSoloed));
    row.classList.toggle("silent", isMuted || (mixer.solo.length > 0 && !isSoloed));
    if (row.dataset.shown === mixer.mode + value) return; // what is set anew is drawn anew
    row.dataset.shown = mixer.mode + value;
    const [low, high] = SLIDER_RANGES[mixer.mode];
    Object.assign(slider, { min: low, max: high, value });
    [number.min, number.max] = MIXER_RANGES[mixer.mode];
    if (document.activeElement !== number || Number(number.value) !== value) {
      number.value = Number(value.toFixed(2));
    }
    back.style.visibility = value === NEUTRAL[mixer.mode] ? "hidden" : "";
    slider.style.setProperty("--share", (100 * (clampTo([low, high], value) - low)) / (high - low) + "%");
  }

  return { node, add, build, show };
}

function sayWhatHappens(mixer, names) {
  if (mixer.bypass) return "Bypassed: every token gets the base model.";
  const overrides = mixerOverrides(mixer, names);
  const set = overrides.find((one) => one.operation === "pin");
  if (set) {
    const sum = Object.values(set.weights).reduce((a, b) => a + b, 0);
    return `The numbers sum to ${sum.toFixed(2)}: ` +
      (set.renormalise ? "scaled to sum to 1." : "used as they are.");
  }
  if (overrides.length === 1 && overrides[0].operation === "bypass") {
    return "All that is set is muted: every token gets the base model.";
  }
  if (!overrides.length) {
    const [, hint] = MODES[mixer.mode];
    return hint;
  }
  if (overrides[0].operation === "solo") return "One expert alone, with weight 1.";
  if (mixer.mode === "add") return "The router decides anew, by its own rule.";
  return mixer.renormalise
    ? "Each token's weights are scaled to the sum they had."
    : "The sum of a token's weights may change; negative numbers work against an expert.";
}

function pressable(text, hint) {
  const button = make("button", "toggle", text);
  button.type = "button";
  button.title = hint;
  if (text.length < 3) button.setAttribute("aria-label", hint); // a sign says nothing aloud
  return button;
}

function quiet(text, act) {
  const button = make("button", "quiet", text);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}
