// How to train: the bank's name, how long, and every option. The value is what all fields show.

const KEPT_OPTIONS = "lmoe-studio-training";

const root = element.querySelector(".options");
const groups = SETUP.groups;
const known = Object.fromEntries(groups.flatMap(({ options }) => options.map((one) => [one.key, one])));
const usual = Object.fromEntries(Object.values(known).map(({ key, usual }) => [key, usual]));
const state = { name: SETUP.name, preset: SETUP.presets[0].name, values: { ...usual, ...SETUP.presets[0].values } };
const fields = {};

function pass() {
  props.value = { name: state.name, values: { ...state.values } };
  keep(KEPT_OPTIONS, state);
}

// Takes over what was kept or came from the server; what is odd in it stays as it is.
function take(given) {
  if (typeof given?.name === "string") state.name = given.name;
  state.preset = SETUP.presets.some(({ name }) => name === given?.preset) ? given.preset : "";
  for (const [key, value] of Object.entries(given?.values ?? {})) {
    if (key in known && (value === null || typeof value === typeof usual[key] || usual[key] === null)) state.values[key] = value;
  }
}

function changed(key, value) {
  state.values[key] = value;
  Object.assign(state.values, SETUP.fills[key]?.[value]);
  if (key in SETUP.presets[0].values) state.preset = "";
  show();
  pass();
}

function labelled(text, help, control) {
  const label = make("label", "field");
  label.append(make("span", "", text), make("small", "", help), control);
  return label;
}

function drawField(option) {
  const id = "option-" + option.key.replace(".", "-");
  if (option.kind === "switch") return drawSwitch(option, id);
  const isNumber = option.kind === "whole" || option.kind === "number";
  const control = make(option.kind === "choice" ? "select" : "input");
  control.id = id;
  if (option.kind === "choice") {
    if (option.empty) control.append(Object.assign(make("option", "", "none"), { value: "" }));
    control.append(...option.choices.map((text) => make("option", "", text)));
  }
  else Object.assign(control, isNumber ? { type: "number", step: "any" } : { type: "text", spellcheck: false });
  if (option.empty) control.placeholder = "none";
  if (option.key in SETUP.offered) control.setAttribute("list", id + "-list");
  control.addEventListener("input", () => {
    const text = control.value.trim();
    changed(option.key, isNumber ? (text === "" ? null : Number(text)) : control.value);
  });
  const node = labelled(option.label, option.help, control);
  if (option.key in SETUP.offered) node.append(Object.assign(make("datalist"), { id: id + "-list" }));
  fields[option.key] = { node, set: (value) => control.value !== String(value ?? "") && (control.value = value ?? "") };
  return node;
}

function drawSwitch(option, id) {
  const control = Object.assign(make("input"), { type: "checkbox", id });
  control.addEventListener("input", () => changed(option.key, control.checked));
  const node = labelled(option.label, option.help, "");
  node.prepend(control);
  node.classList.add("tick-field");
  const head = make("span", "tick");
  head.append(control, node.querySelector("span").textContent);
  node.querySelector("span").replaceWith(head);
  fields[option.key] = { node, set: (value) => (control.checked = Boolean(value)) };
  return node;
}

function drawPresets() {
  const box = make("fieldset");
  box.append(make("legend", "", "How long"));
  for (const preset of SETUP.presets) {
    const label = make("label", "preset");
    const radio = Object.assign(make("input"), { type: "radio", name: "training-preset", value: preset.name });
    radio.addEventListener("change", () => {
      Object.assign(state.values, preset.values);
      state.preset = preset.name;
      show();
      pass();
    });
    label.append(radio, make("strong", "", preset.name), make("small", "", preset.note));
    box.append(label);
  }
  return box;
}

const name = Object.assign(make("input"), { type: "text", maxLength: 80, id: "bank-to-be", spellcheck: false });
name.addEventListener("input", () => {
  state.name = name.value;
  pass();
});
const presets = drawPresets();
const first = make("div", "first");
first.append(labelled("Name of the bank", "The sidebar will list the bank under it.", name), presets);
const all = make("details", "all");
const counts = [];
all.append(make("summary", "", "All options"));
for (const { title, options } of groups) {
  const fold = make("details", "group");
  const head = make("summary", "", title);
  const count = make("em");
  head.append(count);
  const grid = make("div", "grid");
  grid.append(...options.map(drawField));
  fold.append(head, grid);
  all.append(fold);
  counts.push(() => {
    const many = options.filter(({ key }) => state.values[key] !== usual[key]).length;
    say(count, many ? ` · ${many} changed` : "");
  });
}
root.replaceChildren(first, all);

function show() {
  if (name.value !== state.name) name.value = state.name;
  for (const radio of presets.querySelectorAll("input")) radio.checked = radio.value === state.preset;
  for (const [key, { node, set }] of Object.entries(fields)) {
    set(state.values[key]);
    node.classList.toggle("is-changed", state.values[key] !== usual[key]);
  }
  for (const count of counts) count();
}

function imported() {
  if (!props.imported) return;
  take({ ...props.imported, values: { ...usual, ...props.imported.values } });
  show();
  pass();
}

function offer(offered) {
  for (const [key, texts] of Object.entries(offered)) {
    const list = fields[key]?.node.querySelector("datalist");
    list?.replaceChildren(...texts.map((value) => Object.assign(make("option"), { value })));
  }
}

watch("imported", imported);
take(kept(KEPT_OPTIONS) ?? state);
show();
offer(SETUP.offered);
pass();
onStudio(({ bases, banks }) => offer({ base: bases, bank: banks }));
