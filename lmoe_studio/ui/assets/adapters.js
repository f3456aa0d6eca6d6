// Adapters to import, each with the name of its expert; the bank, its base and its router.

const KEPT_IMPORT = "lmoe-studio-import";
const MOST_LOOKED_AT = 5000; // files of a folder that is dropped

const root = element.querySelector(".adapters");
const text = (value) => (typeof value === "string" ? value : "");
const isZip = (name) => name.toLowerCase().endsWith(".zip");
const state = takeKept(kept(KEPT_IMPORT));
let places = []; // folders of the operator's folder

function takeKept(given) {
  const rows = Array.isArray(given?.rows) ? given.rows.slice(0, SETUP.most) : [];
  return {
    bank: text(given?.bank) || "imported",
    base: text(given?.base),
    router: SETUP.routers.includes(given?.router) ? given.router : SETUP.routers[0],
    top_k: typeof given?.top_k === "number" ? given.top_k : null,
    rows: rows.map((row) => ({
      name: text(row?.name),
      place: text(row?.place),
      files: (Array.isArray(row?.files) ? row.files : []).map((file) => ({ path: text(file?.path), name: text(file?.name) })),
    })),
  };
}

function pass() {
  const rows = state.rows.map(({ name, place, files }) => ({ name, place, files }));
  props.value = { ...state, rows };
  keep(KEPT_IMPORT, props.value);
}

// A name that an expert may have and none has yet.
function freeName(wanted) {
  const plain = wanted.replace(/[^\p{L}\p{N}_.+-]+/gu, "-").replace(/^[-.+]+|-+$/g, "").slice(0, 60) || "adapter";
  const isTaken = (name) => state.rows.some((row) => row.name === name);
  let name = plain;
  for (let number = 2; isTaken(name); number++) name = `${plain}-${number}`;
  return name;
}

function addRow(wanted, more) {
  if (state.rows.length >= SETUP.most) {
    say(note, `A page imports at most ${SETUP.most} adapters.`);
    return null;
  }
  const row = { name: freeName(wanted), place: "", files: [], sending: 0, problem: "", ...more };
  state.rows.push(row);
  return row;
}

// Files as { file, path }: a .zip is a row of its own, the parts that lie in one folder are one.
function take(found) {
  const wanted = found.filter(({ file: { name } }) => isZip(name) || SETUP.parts.includes(name) || name === SETUP.pickle);
  say(note, wanted.length ? "" : `There is no adapter in that; expected a .zip file, or ${SETUP.parts.join(" and ")}.`);
  const rowOf = {};
  for (const { file, path } of wanted) {
    const folder = path.split("/").slice(0, -1).filter(Boolean).join("/");
    const key = isZip(file.name) ? path : folder;
    const loose = state.rows.find((row) => !folder && row.isLoose && !row.files.some(({ name }) => name === file.name));
    if (isZip(file.name)) rowOf[key] = addRow(file.name.slice(0, -4));
    else rowOf[key] ??= loose ?? addRow(folder.split("/").pop() || "adapter", { isLoose: !folder });
    if (rowOf[key]) send(rowOf[key], file);
  }
  draw();
  pass();
}

async function send(row, file) {
  row.files = row.files.filter(({ name }) => name !== file.name);
  if (file.name === SETUP.pickle) return void row.files.push({ path: "", name: file.name });
  if (file.size > SETUP.mostBytes) {
    row.problem = `${file.name} has more than ${SETUP.mostBytes >> 20} MB, more than a page takes; use lmoe import.`;
    return;
  }
  row.sending += 1;
  try {
    const { path } = await upload(file);
    if (!path) throw new Error();
    row.files.push({ path, name: file.name });
  } catch {
    row.problem = `${file.name} could not be uploaded; try again.`;
  }
  row.sending -= 1;
  draw();
  pass();
}

async function filesOf(entries) {
  const found = [];
  const read = (what, how) => new Promise((good, bad) => what[how](good, bad));
  async function walk(entry) {
    if (found.length >= MOST_LOOKED_AT) return;
    if (entry.isFile) return void found.push({ file: await read(entry, "file"), path: entry.fullPath });
    const reader = entry.createReader();
    for (let some; (some = await read(reader, "readEntries")).length; ) for (const one of some) await walk(one);
  }
  for (const entry of entries) await walk(entry);
  return found;
}

function saysOf(row) {
  if (row.problem) return row.problem;
  if (row.sending) return "Uploading…";
  if (row.place) return `${row.place}, a folder of the server`;
  const names = row.files.map(({ name }) => name);
  const missing = names.some((name) => isZip(name) || name === SETUP.pickle) ? [] : SETUP.parts.filter((part) => !names.includes(part));
  return names.join(", ") + (missing.length ? ` · ${missing.join(" and ")} is still to be given` : "");
}

function drawRow(row, at) {
  const node = make("li", "row");
  const letter = String.fromCharCode(65 + at);
  node.style.setProperty("--expert", SETUP.colours[at % SETUP.colours.length]);
  const name = Object.assign(make("input"), { type: "text", value: row.name, maxLength: 80, spellcheck: false });
  name.setAttribute("aria-label", `Name of adapter ${at + 1}`);
  name.addEventListener("input", () => {
    row.name = name.value;
    pass();
  });
  const says = make("p", row.problem ? "says problem" : "says", saysOf(row));
  const remove = make("button", "toggle remove", "×");
  remove.type = "button";
  remove.setAttribute("aria-label", `Remove adapter ${at + 1}`);
  remove.addEventListener("click", () => {
    state.rows.splice(state.rows.indexOf(row), 1);
    draw();
    pass();
    pick.focus();
  });
  node.append(make("span", "glyph", at < 26 ? letter : String(at + 1)), name, says, remove);
  return node;
}

function draw() {
  const focused = [...list.querySelectorAll("input")].indexOf(document.activeElement);
  list.replaceChildren(...state.rows.map(drawRow));
  list.querySelectorAll("input")[focused]?.focus();
}

function chooser(words, label, more) {
  const input = Object.assign(make("input"), { type: "file", multiple: true, hidden: true, ...more });
  input.setAttribute("aria-label", label);
  input.addEventListener("change", () => {
    take([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
    input.value = "";
  });
  const button = make("button", "toggle", words);
  button.type = "button";
  button.addEventListener("click", () => input.click());
  drop.append(button, input);
  return button;
}

function field(words, help, control, show) {
  const label = make("label", "field");
  label.append(make("span", "", words), make("small", "", help), control);
  options.append(label);
  control.addEventListener("input", () => {
    show(control.value.trim());
    pass();
  });
  return label;
}

const drop = make("div", "drop");
drop.append(make("span", "", "Drop adapter folders or .zip files here, or"));
const pick = chooser("Choose files", "Files of adapters", { accept: ".zip,.json,.safetensors" });
chooser("Choose a folder", "Folder with adapters", { webkitdirectory: true });
const from = make("select");
from.setAttribute("aria-label", "Folder of the server");
from.addEventListener("change", () => {
  addRow(from.value.split("/").pop(), { place: from.value });
  from.value = "";
  draw();
  pass();
});
drop.append(from);
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  take(await filesOf(entries).catch(() => []));
});

const note = make("p", "says");
note.setAttribute("role", "status");
const list = make("ol", "list");
const options = make("div", "grid");
const plain = (value) => Object.assign(make("input"), { type: "text", value, spellcheck: false, maxLength: 200 });
const base = Object.assign(plain(state.base), { placeholder: SETUP.base });
base.setAttribute("list", "import-bases");
const bases = Object.assign(make("datalist"), { id: "import-bases" });
const router = make("select");
router.append(...SETUP.routers.map((kind) => make("option", "", kind)));
router.value = state.router;
const many = Object.assign(make("input"), { type: "number", min: 1, step: 1, placeholder: "all", value: state.top_k ?? "" });
field("Name of the bank", "The sidebar will list it under this name.", plain(state.bank), (value) => (state.bank = value));
field("Base model", "Which one the adapters were trained on: one of the list, or a Hugging Face id.", base, (value) => (state.base = value)).append(bases);
field("Router", SETUP.aboutRouters, router, (value) => (state.router = value));
field("Experts a token", "The best so many are kept; empty keeps all.", many, (value) => (state.top_k = value === "" ? null : Number(value)));
root.replaceChildren(drop, note, list, options);
draw();
pass();
onStudio((studio) => {
  bases.replaceChildren(...studio.bases.map((value) => Object.assign(make("option"), { value })));
  if (JSON.stringify(studio.adapters) === JSON.stringify(places)) return;
  places = studio.adapters;
  const first = Object.assign(make("option", "", "From the folder of the server…"), { value: "" });
  from.replaceChildren(first, ...places.map((name) => make("option", "", name)));
  from.hidden = !places.length;
});
from.hidden = !places.length;
