// Token text as nodes. Text reaches the page by textContent only, whatever it holds.

const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffd\u{e0000}-\u{e0fff}]/u;
const EMOJI = /\p{Extended_Pictographic}/u;
const JOINS_EMOJI = /[\u200d\ufe0e\ufe0f]/u;

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Text that is set anew is laid out anew, even where it is the same.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// What stands for a character that could not be seen, or would move the text around it.
function signFor(character) {
  const code = character.codePointAt(0);
  if (character === "\n") return "⏎";
  if (character === "\t") return "⇥";
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  if (code === 127) return "␡";
  if (character === "\ufffd") return "�";
  return "U+" + code.toString(16).toUpperCase().padStart(4, "0");
}

// The text cut into runs that show as they are and signs: [[text, isSign], …].
function visibleRuns(text) {
  if (text === "") return [["∅", true]];
  const runs = [];
  const isEmoji = EMOJI.test(text);
  for (const character of text) {
    const hidden = HIDDEN.test(character) && !(isEmoji && JOINS_EMOJI.test(character));
    const last = runs[runs.length - 1];
    if (hidden) runs.push([signFor(character), true]);
    else if (last && !last[1]) last[0] += character;
    else runs.push([character, false]);
  }
  return runs;
}

// One line of text for labels and tooltips; spaces at the ends are made visible.
function visibleText(text) {
  return visibleRuns(text).map(([run]) => run).join("").replace(/^ +| +$/g, (s) => "␣".repeat(s.length));
}

// For text that stands alone: spaces at its ends are signs too.
function appendAlone(node, text) {
  const [, before, middle, after] = /^( *)(.*?)( *)$/su.exec(text);
  if (before) node.append(make("span", "sign space", "␣".repeat(before.length)));
  if (middle || text === "") appendVisible(node, middle);
  if (after) node.append(make("span", "sign space", "␣".repeat(after.length)));
}

function appendVisible(node, text) {
  for (const [run, isSign] of visibleRuns(text)) {
    if (isSign) node.append(make("span", "sign", run));
    else node.append(run);
  }
}

function tokenSpan(text) {
  const span = make("span", "tok");
  span.setAttribute("role", "option");
  appendVisible(span, hasSpacer(text) ? text.slice(1) : text);
  return span;
}

// A leading space stands before the span and line breaks after it, so that the marks of
// neighbours do not run together and no break falls inside a mark.
const hasSpacer = (text) => /^ \S/.test(text);
const breaksAfter = (text) => /\n*$/.exec(text)[0].length;
