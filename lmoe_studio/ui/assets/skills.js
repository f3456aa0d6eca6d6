// The experts to train: a name, a description and texts for each. The value is the list of them.

const KEPT_SKILLS = "lmoe-studio-skills";
const MOST_PASTED = 1_500_000; // bytes of all pasted texts: what the server takes in one request
const MOST_UPLOADED = 64 * 2 ** 20;
const PAUSE = 200; // milliseconds of rest before what is typed is passed on

const root = element.querySelector(".skills");
const list = make("ol", "rows");
const add = make("button", "toggle", "Add an expert");
const example = make("button", "quiet", "fill in an example");
const note = make("p", "says");
add.type = example.type = "button";
note.setAttribute("role", "status");
const foot = make("div", "foot");
foot.append(add, example, note);
root.replaceChildren(list, foot);

let rows = takeRows(kept(KEPT_SKILLS)) ?? [blank(), blank()];
let files = []; // of the operator's folder
let waiting = 0;

function blank() {
  return { name: "", description: "", kind: "paste", text: "", file: null, places: [], held_out: [], tags: [], source: "" };
}

function keepRows() {
  const bytes = rows.reduce((sum, row) => sum + row.text.length, 0);
  const small = bytes > MOST_PASTED ? rows.map((row) => ({ ...row, text: "" })) : rows;
  keep(KEPT_SKILLS, small);
}

// Rows as they were kept or came from the server; what is missing or odd in one becomes blank.
function takeRows(given) {
  if (!Array.isArray(given) || !given.length) return null;
  const texts = (value) => (Array.isArray(value) ? value.filter((one) => typeof one === "string") : []);
  const text = (value) => (typeof value === "string" ? value : "");
  return given.slice(0, SETUP.most).map((one) => ({
    name: text(one?.name),
    description: text(one?.description),
    kind: ["paste", "file", "folder"].includes(one?.kind) ? one.kind : "paste",
    text: text(one?.text),
    file: typeof one?.file?.path === "string" ? { path: one.file.path, name: text(one.file.name) } : null,
    places: texts(one?.places),
    held_out: texts(one?.held_out),
    tags: texts(one?.tags),
    source: text(one?.source),
  }));
}

// How many texts there are, told as the trainer reads them.
function countTexts(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  if (!lines.length) return "";
  const count = (number, unit) => `${number.toLocaleString("en")} ${unit}${number === 1 ? "" : "s"}`;
  const size = ` · ${text.trim().length.toLocaleString("en")} characters`;
  if (lines[0].trim().startsWith("{")) return count(lines.length, "JSON row") + size;
  const head = lines[0].split(",").map((name) => name.replace(/["\s]/g, ""));
  const isTable = head.length > 1 && (head.includes("text") || (head.includes("prompt") && head.includes("response")));
  if (isTable) return `CSV with ${head.join(", ")}${size}`;
  const blocks = text.trim().split(/\n\s*\n+/).length;
  return blocks > 1
    ? `${count(blocks, "text")}, apart by blank lines${size}`
    : `${count(lines.length, "text")}, one a line${size}`;
}

function pass() {
  clearTimeout(waiting);
  waiting = 0;
  const bytes = new TextEncoder().encode(rows.map((row) => (row.kind === "paste" ? row.text : "")).join("")).length;
  const isTooMuch = bytes > MOST_PASTED;
  note.classList.toggle("problem", isTooMuch);
  say(note, isTooMuch ? "That is more pasted text than one request takes; upload it as files instead." : "");
  props.value = isTooMuch ? rows.map((row) => ({ ...row, text: "" })) : rows.map((row) => ({ ...row }));
  keepRows();
}

function changed(at, change) {
  Object.assign(rows[at], change);
  clearTimeout(waiting);
  waiting = setTimeout(pass, PAUSE);
}

// What was typed must be there before a button or Ctrl+Enter acts.
root.addEventListener("focusout", () => waiting && pass());
addEventListener("pagehide", () => waiting && keepRows());
root.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && waiting) pass();
});

function rebuild(change) {
  change();
  draw();
  pass();
}

function field(value, placeholder, label, onInput, most) {
  const input = Object.assign(make("input"), { type: "text", value, placeholder, maxLength: most });
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => onInput(input.value));
  return input;
}

function pressed(text, isOn, act) {
  const button = make("button", "toggle", text);
  button.type = "button";
  button.setAttribute("aria-pressed", String(isOn));
  button.addEventListener("click", act);
  return button;
}

function drawRow(row, at) {
  const node = make("li", "row");
  const letter = glyphOf(at);
  const who = `expert ${letter}`;
  node.style.setProperty("--expert", SETUP.colours[at % SETUP.colours.length]);
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", `Expert ${letter}`);

  const head = make("div", "who");
  const name = field(row.name, "name", `Name of ${who}`, (value) => changed(at, { name: value }), 80);
  const about = field(row.description, "what it is for (optional)", `Description of ${who}`, (value) => changed(at, { description: value }), 300);
  const remove = make("button", "toggle remove", "×");
  remove.type = "button";
  remove.title = `Remove ${who}`;
  remove.setAttribute("aria-label", `Remove ${who}`);
  remove.disabled = rows.length === 1;
  remove.addEventListener("click", () => {
    rebuild(() => rows.splice(at, 1));
    (list.children[Math.min(at, rows.length - 1)]?.querySelector(".remove:enabled") ?? add).focus();
  });
  head.append(make("span", "glyph", letter), name, about, remove);

  const from = make("div", "from");
  const kinds = make("span", "kinds");
  kinds.setAttribute("role", "group");
  kinds.setAttribute("aria-label", `Where the texts of ${who} come from`);
  const offered = [["paste", "Paste"], ["file", "Upload"], ...(files.length ? [["folder", "From the folder"]] : [])];
  for (const [kind, text] of offered) {
    kinds.append(pressed(text, row.kind === kind, () => {
      rebuild(() => (rows[at].kind = kind));
      list.children[at].querySelector('[aria-pressed="true"]')?.focus();
    }));
  }
  from.append(kinds);

  const place = make("div", "place");
  const says = make("p", "says");
  const draws = { paste: drawPaste, file: drawFile, folder: drawFolder };
  draws[row.kind](place, says, row, at, who);
  node.append(head, from, place, says);
  takesDrops(node, at);
  return node;
}

function drawPaste(place, says, row, at, who) {
  const area = make("textarea");
  area.value = row.text;
  area.rows = 5;
  area.spellcheck = false;
  area.placeholder = "Paste some texts: apart by blank lines, or one a line; or JSONL or CSV with text, or with prompt and response.";
  area.setAttribute("aria-label", `Texts of ${who}`);
  area.addEventListener("input", () => {
    changed(at, { text: area.value });
    say(says, countTexts(area.value));
  });
  say(says, countTexts(row.text));
  place.append(area);
}

function drawFile(place, says, row, at, who) {
  const drop = make("label", "drop");
  const input = Object.assign(make("input"), { type: "file", accept: SETUP.suffixes.join(",") });
  input.setAttribute("aria-label", `File with the texts of ${who}`);
  input.addEventListener("change", () => input.files[0] && send(at, input.files[0]));
  const told = row.file ? make("strong", "", row.file.name) : make("span", "", "Choose a file, or drop one here");
  drop.append(input, told, make("span", "", row.file ? "choose another" : SETUP.suffixes.join("  ")));
  input.addEventListener("focus", () => drop.style.setProperty("outline", "2px solid var(--wb-ink)"));
  input.addEventListener("blur", () => drop.style.removeProperty("outline"));
  place.append(drop);
  if (row.problem) {
    says.classList.add("problem");
    say(says, row.problem);
  } else if (row.sending) say(says, "Uploading…");
}

function drawFolder(place, says, row, at, who) {
  for (const [key, text] of [["places", "Texts"], ["held_out", "Held-out texts (none: a share is set aside)"]]) {
    const label = make("label", "list", text);
    const select = Object.assign(make("select"), { multiple: true, size: 4 });
    select.setAttribute("aria-label", `${text} of ${who}`);
    for (const name of files) {
      const option = make("option", "", name);
      option.selected = row[key].includes(name);
      select.append(option);
    }
    select.addEventListener("change", () => {
      changed(at, { [key]: [...select.selectedOptions].map((option) => option.value) });
      pass();
    });
    label.append(select);
    place.append(label);
  }
}

async function send(at, file) {
  const row = rows[at];
  const suffix = file.name.slice(file.name.lastIndexOf(".")).toLowerCase();
  const tell = (change) => rebuild(() => Object.assign(row, change));
  if (!SETUP.suffixes.includes(suffix)) {
    return tell({ kind: "file", problem: `${file.name}: expected ${SETUP.suffixes.join(", ")}.` });
  }
  if (file.size > MOST_UPLOADED) {
    return tell({ kind: "file", problem: `${file.name} has more than 64 MB; train with the command line.` });
  }
  tell({ kind: "file", problem: "", sending: true });
  try {
    const { path } = await upload(file);
    if (!path) throw new Error();
    tell({ file: { path, name: file.name }, sending: false });
  } catch {
    tell({ sending: false, problem: `${file.name} could not be uploaded; try again.` });
  }
}

function takesDrops(node, at) {
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  node.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    node.classList.add("over");
  });
  node.addEventListener("dragleave", () => node.classList.remove("over"));
  node.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    node.classList.remove("over");
    if (event.dataTransfer.files[0]) send(at, event.dataTransfer.files[0]);
  });
}

function glyphOf(index) {
  return String.fromCharCode(65 + index);
}

function draw() {
  list.replaceChildren(...rows.map(drawRow));
  add.disabled = rows.length >= SETUP.most;
  add.title = add.disabled ? `At most ${SETUP.most} experts` : "";
}

add.addEventListener("click", () => {
  rebuild(() => rows.push(blank()));
  list.lastElementChild.querySelector("input").focus();
});
example.addEventListener("click", () => rebuild(() => (rows = takeRows(SETUP.example))));

function imported() {
  const given = takeRows(props.imported?.rows);
  if (given) rebuild(() => (rows = given));
}

watch("imported", imported);
draw();
pass();
onStudio((studio) => {
  if (JSON.stringify(studio.files) === JSON.stringify(files)) return;
  files = studio.files;
  draw();
});
