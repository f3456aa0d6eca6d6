// What the model will see: the first sequences of each expert, token by token.

const root = element.querySelector(".sequences");

function drawTokens(tokens) {
  const box = make("div", "seen");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "A sequence");
  const texts = tokens.map(([text]) => text);
  const pieces = piecesIn(texts);
  tokens.forEach(([text, isLearned], index) => {
    if (hasSpacer(text)) box.append(" ");
    tokenSpans(text, pieces.get(index)).forEach((span, number) => {
      if (number) box.append(make("br"));
      span.classList.toggle("read", !isLearned);
      box.append(span);
    });
    if (endsLine(text, texts[index + 1])) box.append(make("br"));
  });
  return box;
}

function drawSkill(skill) {
  const section = make("section", "skill");
  const head = make("header");
  const glyph = make("span", "glyph", skill.glyph);
  glyph.style.setProperty("--expert", skill.colour);
  head.append(glyph, make("span", "name", skill.name), make("span", "", skill.data));
  if (skill.repeats) head.append(make("span", "", skill.repeats));
  if (skill.dropped) head.append(make("span", "dropped", "left out or changed: " + skill.dropped));
  section.append(head, ...skill.sequences.map(drawTokens));
  return section;
}

function show() {
  const skills = props.value?.skills ?? [];
  if (!skills.length) return root.replaceChildren();
  const legend = make("p", "legend");
  legend.append("The first sequences as the model gets them. ", make("span", "tok", "Plain"), " tokens are learned; ", make("span", "tok read", "hatched"), " ones are only read.");
  root.replaceChildren(legend, ...skills.map(drawSkill));
}

watch("value", show);
show();
