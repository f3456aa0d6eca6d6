// Two plans to compare: from the composer, from its presets, one expert alone, or pasted.

const KEPT_PICKS = "lmoe-studio-picks";

const root = element.querySelector(".picker");
const note = make("p", "told");
note.setAttribute("role", "status");
let bank = "";
let names = [];
let picks = readPicks();
const sides = { a: makeSide("a", "A"), b: makeSide("b", "B") };

function readPicks() {
  const saved = kept(KEPT_PICKS);
  const isPick = (pick) => typeof pick?.choice === "string" && typeof pick?.json === "string";
  const blank = { a: { choice: "router", json: "" }, b: { choice: "", json: "" } };
  return isPick(saved?.a) && isPick(saved?.b) ? saved : blank;
}

function makeSide(side, label) {
  const node = make("div", "side");
  const select = make("select");
  const json = make("textarea");
  select.setAttribute("aria-label", "Plan " + label);
  json.setAttribute("aria-label", "Plan " + label + " as JSON");
  json.placeholder = '{"version": 1, "overrides": […]}';
  json.rows = 4;
  json.spellcheck = false;
  const head = make("label", "head");
  head.append(make("strong", "", label), select);
  node.append(head, json);
  select.addEventListener("focus", show);
  select.addEventListener("change", () => update(side, { choice: select.value }));
  json.addEventListener("input", () => update(side, { json: json.value }));
  return { node, select, json };
}

function update(side, change) {
  Object.assign(picks[side], change);
  show();
  changed();
}

function optionsOf() {
  const group = (label, entries) => {
    const node = Object.assign(make("optgroup"), { label });
    node.append(...entries.map(([value, text]) => Object.assign(make("option", "", text), { value })));
    return node;
  };
  const groups = [group("Plans", [
    ["router", "The router alone"], ["compose", "The plan in Compose"], ["json", "A plan as JSON…"],
  ])];
  const saved = keptPresets();
  if (saved.length) groups.push(group("Presets", saved.map(({ name }) => ["preset:" + name, name])));
  groups.push(group("One expert alone", names.map((name) => ["solo:" + name, "solo " + name])));
  return groups;
}

// What was picked and is not there, as after another bank has come, stays picked: it is said for as long,
// and is back when it comes back.
function show() {
  for (const [side, { select, json }] of Object.entries(sides)) {
    const { choice } = picks[side];
    select.replaceChildren(...optionsOf());
    if (!isThere(choice)) {
      const text = `${wordsFor(choice)}: not here, so the router alone`;
      select.prepend(Object.assign(make("option", "", text), { value: choice }));
    }
    select.value = choice;
    json.hidden = picks[side].choice !== "json";
    if (json.value !== picks[side].json) json.value = picks[side].json;
  }
  const said = Object.keys(sides).map((side) => whyAlone(side.toUpperCase(), picks[side].choice));
  say(note, said.filter(Boolean).join(" "));
}

const nameIn = (choice) => choice.replace(/^\w+:/, "");
const wordsFor = (choice) => (choice.startsWith("solo:") ? "solo " : "") + nameIn(choice);

function isThere(choice) {
  if (choice.startsWith("solo:")) return names.includes(nameIn(choice));
  if (choice.startsWith("preset:")) return keptPresets().some(({ name }) => name === nameIn(choice));
  return ["router", "compose", "json"].includes(choice);
}

// Why a side has the router alone, where something else was picked.
function whyAlone(label, choice) {
  if (choice === "compose") {
    const isEmpty = !keptPlan(bank)?.plan?.length;
    return isEmpty && `${label} is the router alone: the plan in Compose holds nothing for the bank ${bank}.`;
  }
  if (isThere(choice)) return "";
  const what = choice.startsWith("solo:") ? `no expert “${nameIn(choice)}” in the bank ${bank}` : `no preset “${nameIn(choice)}” any more`;
  return `${label} is the router alone: there is ${what}.`;
}

function overridesOf({ choice, json }) {
  if (!isThere(choice)) return { overrides: [] };
  if (choice === "json") return { json };
  if (choice === "compose") return { overrides: keptPlan(bank)?.plan ?? [] };
  if (choice.startsWith("preset:")) {
    return { overrides: keptPresets().find((one) => one.name === choice.slice(7))?.plan ?? [] };
  }
  if (choice.startsWith("solo:")) {
    return { overrides: [{ operation: "solo", weights: { [choice.slice(5)]: 1 } }] };
  }
  return { overrides: [] };
}

function changed() {
  props.value = { bank, a: overridesOf(picks.a), b: overridesOf(picks.b) };
  keep(KEPT_PICKS, picks);
}

function exchange() {
  picks = { a: picks.b, b: picks.a };
  show();
  changed();
}

function promote() {
  picks.a = structuredClone(picks.b);
  show();
  changed();
}

const tools = make("div", "tools");
for (const [text, hint, act] of [
  ["Swap", "A becomes B, and B becomes A", exchange],
  ["Promote B to A", "What is B now is A from here on", promote],
]) {
  const button = make("button", "toggle", text);
  button.type = "button";
  button.title = hint;
  button.addEventListener("click", act);
  tools.append(button);
}

function bankCame(studio) {
  const others = studio.experts.map((expert) => expert.name);
  if (!studio.bank || (studio.bank === bank && others.join() === names.join())) return;
  [bank, names] = [studio.bank, others];
  if (!picks.b.choice && names.length) picks.b.choice = "solo:" + names[0];
  root.replaceChildren(sides.a.node, tools, sides.b.node, note);
  show();
  changed();
}

onStudio(bankCame);
for (const event of ["lmoe:plan", "storage"]) {
  window.addEventListener(event, () => {
    if (!bank) return;
    if (document.activeElement?.closest(".picker") === null) show();
    changed();
  });
}
