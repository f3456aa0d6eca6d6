// What is beside a job's curves: its experts in numbers, the health of its routers, its log.

const root = element.querySelector(".jobs");
const box = make("div", "details");
const skillsBox = make("section");
const lightsBox = make("section");
const logBox = make("section");
const fold = Object.assign(make("details", "log"), { open: true });
const head = make("summary");
const log = make("pre"); // changed where it stands: its text may be selected
log.tabIndex = 0;
log.setAttribute("aria-label", "Log");
fold.append(head, log);
logBox.append(fold);
box.append(skillsBox, lightsBox, logBox);
root.replaceChildren(box);
let shown = "";

const HEADS = ["expert", "base model", "now", "change", "share", "texts"];

function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function drawSkills({ skills, measured }) {
  const table = make("table");
  const titles = make("tr");
  titles.append(...HEADS.map((text) => Object.assign(make("th", "", text), { scope: "col" })));
  table.append(titles, ...skills.map(drawSkill));
  const scroll = make("div", "scroll");
  scroll.append(table);
  skillsBox.replaceChildren(make("h4", "", "Held-out loss of each expert's texts"), scroll, make("p", "measured", measured));
}

function drawSkill(skill) {
  const row = make("tr");
  const who = make("td");
  const span = make("span");
  const glyph = make("span", "glyph", skill.glyph);
  glyph.style.setProperty("--expert", skill.colour);
  span.append(glyph, make("span", "name", skill.name));
  span.title = skill.name;
  who.append(span);
  const isKnown = skill.base !== null && skill.bank !== null;
  const change = isKnown ? skill.bank - skill.base : null;
  const isFlat = change === null || Math.abs(change) < 0.0005;
  const sign = change !== null && change > 0 ? "+" : "";
  const data = make("td", "data");
  const texts = make("div", "", skill.data);
  data.append(texts);
  if (skill.dropped) texts.append(make("span", "dropped", "left out or changed: " + skill.dropped));
  row.append(
    who,
    make("td", "", number(skill.base)),
    make("td", "", number(skill.bank)),
    make("td", isFlat ? "" : change < 0 ? "better" : "worse", isKnown ? sign + number(change) : "–"),
    make("td", "", skill.share === null ? "–" : Math.round(100 * skill.share) + " %"),
    data,
  );
  return row;
}

function drawLights({ lights }) {
  const list = make("ul", "lights");
  for (const light of lights) {
    const item = make("li", light.health.replace(/\W/g, "-"));
    item.append(make("span", "", light.layers), make("span", "mark", light.health), make("span", "about", light.says));
    list.append(item);
  }
  lightsBox.replaceChildren(make("h4", "", "Health of the routers"), lights.length ? list : make("p", "none", "Known after the first step."));
}

function showLog({ id, log: lines, open_log: opens }) {
  const isAtEnd = shown !== id || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  logBox.classList.toggle("failed-log", opens);
  if (opens && shown !== id) fold.open = true;
  say(head, lines.length ? "Log, its last lines" : "Log: nothing yet");
  say(log, lines.join("\n"));
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function show() {
  const value = props.value;
  if (!value) return;
  skillsBox.hidden = lightsBox.hidden = !value.skills.length;
  drawSkills(value);
  drawLights(value);
  showLog(value);
  shown = value.id;
  root.dataset.shows = value.mark;
}

watch("value", show);
show();
