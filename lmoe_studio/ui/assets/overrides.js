// The list of overrides: what each does, where, how strongly, and in which order.

const OPERATION_NAMES = {
  solo: "Solo", ban: "Ban", boost: "Multiply weights", pin: "Set weights", bias: "Add to logits",
  temperature: "Temperature", top_k: "Keep top k", uniform: "Share evenly", bypass: "Bypass (base model)",
};
const SCOPES = {
  all: "All tokens", prompt: "The prompt", generated: "What is generated",
  positions: "Positions", steps: "Generated steps", text: "Where the text is", regex: "Matches of a regex",
};
const EXAMPLES_OF = { positions: "4-9", steps: "0-15", text: "SELECT", regex: "\\d+" };
const BLANKS = { boost: 2, pin: 1, bias: 2 };

function makeOverrides(state, changed) {
  const node = make("section", "overrides");
  node.setAttribute("aria-label", "Overrides");
  const list = make("ol", "entries");
  const none = make("p", "none");
  none.textContent = "None yet. They are applied from top to bottom, the mixer last. Add the mixer as one, " +
    "write one here, or select tokens below and choose “Override selection…”.";
  const create = make("button", "toggle", "New override");
  create.type = "button";
  create.addEventListener("click", () => add([{ operation: "solo", weights: { [firstName()]: 1 } }]));
  const head = make("div", "head");
  head.append(make("h4", "", "Overrides"), create);
  node.append(head, list, none);

  const firstName = () => state.experts[0]?.name ?? "";

  function add(overrides) {
    state.entries.push(...overrides.map(makeEntry));
    build();
    changed();
    list.lastChild?.scrollIntoView({ block: "nearest" });
  }

  function update(change) {
    change();
    build();
    changed();
  }

  function build() {
    const focused = list.contains(document.activeElement) ? placeOf(document.activeElement) : null;
    let number = 0;
    list.replaceChildren(...state.entries.map((entry, index) =>
      makeRow(entry, index, entry.on ? ++number : null)));
    none.hidden = state.entries.length > 0;
    if (focused) controlsOf(list.children[focused[0]])[focused[1]]?.focus();
  }

  // Which control of which row, so that the focus can come back after a row was built anew.
  const controlsOf = (row) => [...(row?.querySelectorAll("button, input, select") ?? [])];
  function placeOf(control) {
    const row = control.closest("li");
    return [[...list.children].indexOf(row), controlsOf(row).indexOf(control)];
  }

  function makeRow(entry, index, number) {
    const row = make("li", "entry");
    row.classList.toggle("off", !entry.on);
    const on = Object.assign(make("input"), { type: "checkbox", checked: entry.on });
    on.setAttribute("aria-label", "On");
    on.addEventListener("change", () => update(() => (entry.on = on.checked)));
    const what = make("div", "what");
    const experts = expertsPicker(entry);
    what.append(on, make("span", "number", number ?? "off"), operationPicker(entry), experts,
      tools(entry, index));
    const where = make("div", "where");
    where.append(layersField(entry), tokensField(entry), strengthField(entry), renormaliseBox(entry));
    const problem = make("p", "problem");
    row.append(what, where, problem);
    if (entry.override.operation in BLANKS) what.after(experts); // a number each needs a line
    row.check = () => (problem.textContent = problemOf(entry));
    row.check();
    return row;
  }

  // Typing leaves the row as it is, or the cursor would jump.
  function typed(control, change) {
    control.addEventListener("input", () => {
      change();
      control.closest("li").check();
      changed();
    });
    return control;
  }

  function operationPicker(entry) {
    const select = picker(OPERATION_NAMES, entry.override.operation, "Operation");
    select.addEventListener("change", () => update(() => changeOperation(entry, select.value)));
    return select;
  }

  function changeOperation(entry, operation) {
    const names = Object.keys(entry.override.weights);
    const named = names.length ? names : [firstName()];
    const weigh = (weight) => Object.fromEntries(named.map((name) => [name, weight]));
    const weights = {
      solo: { [named[0]]: 1 }, ban: weigh(0), uniform: weigh(1), temperature: {}, top_k: {}, bypass: {},
    }[operation] ?? weigh(BLANKS[operation]);
    const value = { temperature: 0.5, top_k: 2 }[operation] ?? null;
    entry.override = { ...entry.override, operation, weights, value };
  }

  function expertsPicker(entry) {
    const { operation, value } = entry.override;
    const box = make("div", "experts");
    if (operation === "bypass") return box;
    if (operation === "temperature" || operation === "top_k") {
      const field = numberField(value, operation === "top_k" ? 1 : 0.1, OPERATION_NAMES[operation]);
      box.append(typed(field, () => (entry.override.value = numberIn(field))));
      return box;
    }
    box.append(...knownExperts(entry).map((expert) =>
      operation in BLANKS ? weightField(entry, expert) : expertButton(entry, expert)));
    return box;
  }

  // The bank's experts, and names from elsewhere that the override speaks of.
  function knownExperts(entry) {
    const known = new Set(state.experts.map((expert) => expert.name));
    const strangers = Object.keys(entry.override.weights).filter((name) => !known.has(name));
    return [...state.experts, ...strangers.map((name) => ({ name, glyph: "?", colour: "#808080" }))];
  }

  function expertButton(entry, expert) {
    const { operation, weights } = entry.override;
    const button = pressable(expert.glyph, expert.name);
    button.classList.add("expert");
    button.style.setProperty("--expert", expert.colour);
    button.setAttribute("aria-pressed", String(expert.name in weights));
    button.addEventListener("click", () => update(() => {
      if (operation === "solo") entry.override.weights = { [expert.name]: 1 };
      else if (expert.name in weights) delete weights[expert.name];
      else weights[expert.name] = operation === "ban" ? 0 : 1;
    }));
    return button;
  }

  function weightField(entry, expert) {
    const { weights } = entry.override;
    const label = make("label", "weight");
    label.style.setProperty("--expert", expert.colour);
    label.title = expert.name;
    const field = numberField(weights[expert.name] ?? null, 0.1, expert.name);
    typed(field, () => {
      if (numberIn(field) === null) delete weights[expert.name];
      else weights[expert.name] = numberIn(field);
    });
    label.append(make("span", "glyph", expert.glyph), field);
    return label;
  }

  function strengthField(entry) {
    const label = make("label", "strength");
    const field = numberField(entry.override.strength, 0.1, "Strength");
    field.min = 0;
    field.max = 1;
    typed(field, () => (entry.override.strength = numberIn(field) ?? 1));
    label.append(make("span", "", "strength"), field);
    return label;
  }

  function layersField(entry) {
    const field = textField(entry.layers, "all", "Layers");
    typed(field, () => (entry.layers = field.value));
    const label = make("label");
    label.append(make("span", "", "layers"), field);
    return label;
  }

  function tokensField(entry) {
    const label = make("label", "tokens");
    const select = picker(SCOPES, entry.kind, "Tokens");
    select.addEventListener("change", () => update(() => (entry.kind = select.value)));
    label.append(make("span", "", "tokens"), select);
    if (entry.kind in EXAMPLES_OF) {
      const field = textField(entry.what, EXAMPLES_OF[entry.kind], SCOPES[entry.kind]);
      field.classList.add("wide");
      label.append(typed(field, () => (entry.what = field.value)));
    }
    return label;
  }

  function renormaliseBox(entry) {
    const label = make("label", "check");
    const box = Object.assign(make("input"), {
      type: "checkbox", checked: entry.override.renormalise,
    });
    box.addEventListener("change", () => update(() => (entry.override.renormalise = box.checked)));
    label.append(box, "renormalise");
    label.hidden = !["pin", "ban", "boost", "top_k"].includes(entry.override.operation);
    return label;
  }

  function tools(entry, index) {
    const box = make("div", "tools");
    const { entries } = state;
    const swap = (other) => update(() =>
      ([entries[index], entries[other]] = [entries[other], entries[index]]));
    const acts = [
      ["↑", "Move up", index > 0, () => swap(index - 1)],
      ["↓", "Move down", index < entries.length - 1, () => swap(index + 1)],
      ["+", "Duplicate", true, () => update(() => entries.splice(index + 1, 0, structuredClone(entry)))],
      ["✕", "Delete", true, () => update(() => entries.splice(index, 1))],
    ];
    box.append(...acts.map(([sign, name, enabled, act]) => {
      const button = pressable(sign, name);
      button.disabled = !enabled;
      button.addEventListener("click", act);
      return button;
    }));
    return box;
  }

  return { node, add, build };
}

// What is wrong with an entry, as far as the page can tell; the Studio checks the rest.
function problemOf(entry) {
  try {
    readEntry(entry);
    return "";
  } catch (error) {
    return error.message;
  }
}

function picker(choices, value, name) {
  const select = make("select");
  select.setAttribute("aria-label", name);
  select.append(...Object.entries(choices).map(([key, text]) =>
    Object.assign(make("option", "", text), { value: key })));
  select.value = value;
  return select;
}

function numberField(value, step, name) {
  const field = Object.assign(make("input"), { type: "number", step, value: value ?? "" });
  field.setAttribute("aria-label", name);
  return field;
}

function textField(value, placeholder, name) {
  const field = Object.assign(make("input"), { type: "text", value, placeholder, maxLength: 200 });
  field.setAttribute("aria-label", name);
  field.spellcheck = false;
  return field;
}

const numberIn = (field) =>
  field.value === "" || !Number.isFinite(Number(field.value)) ? null : Number(field.value);
