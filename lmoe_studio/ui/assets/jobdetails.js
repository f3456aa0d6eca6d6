// What is beside a job's curves: its experts in numbers, the health of its routers, its log.

const root = element.querySelector(".jobs");
const box = make("div", "details");
root.replaceChildren(box);
let shown = "";
let isOpen = true;

const HEADS = ["expert", "base model", "now", "change", "share", "texts"];

function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function drawSkills({ skills, measured }) {
  const section = make("section");
  const table = make("table");
  const head = make("tr");
  head.append(...HEADS.map((text) => Object.assign(make("th", "", text), { scope: "col" })));
  table.append(head, ...skills.map(drawSkill));
  const scroll = make("div", "scroll");
  scroll.append(table);
  section.append(make("h4", "", "Held-out loss of each expert's texts"), scroll, make("p", "measured", measured));
  return section;
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
  const section = make("section");
  const list = make("ul", "lights");
  for (const light of lights) {
    const item = make("li", light.health.replace(/\W/g, "-"));
    item.append(make("span", "", light.layers), make("span", "mark", light.health), make("span", "about", light.says));
    list.append(item);
  }
  section.append(make("h4", "", "Health of the routers"), lights.length ? list : make("p", "none", "Known after the first step."));
  return section;
}

function drawLog({ log, open_log: opens }) {
  const section = make("section", opens ? "failed-log" : "");
  const fold = make("details", "log");
  fold.open = isOpen || opens;
  fold.addEventListener("toggle", () => (isOpen = fold.open));
  const text = make("pre", "", log.join("\n"));
  text.tabIndex = 0;
  text.setAttribute("aria-label", "Log");
  fold.append(make("summary", "", log.length ? "Log, its last lines" : "Log: nothing yet"), text);
  section.append(fold);
  return section;
}

function show() {
  const value = props.value;
  if (!value) return;
  const before = box.querySelector("pre");
  const isAtEnd = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 8;
  const top = before?.scrollTop ?? 0;
  const hadFocus = document.activeElement === before && before;
  const parts = [drawLog(value)];
  if (value.skills.length) parts.unshift(drawSkills(value), drawLights(value));
  box.replaceChildren(...parts);
  const log = box.querySelector("pre");
  log.scrollTop = isAtEnd || shown !== value.id ? log.scrollHeight : top;
  if (hadFocus) log.focus();
  shown = value.id;
}

watch("value", show);
show();
