// Token text as nodes. Text reaches the page by textContent only, whatever it holds.

const HIDDEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffd\u{e0000}-\u{e0fff}]/u;
const EMOJI = /\p{Extended_Pictographic}/u;
const JOINS_EMOJI = /[\u200d\ufe0e\ufe0f]/u;
const AFTER_BREAK = /(?<=\n|\r(?!\n)|[\u0085\u2028\u2029])/u;
const TAB = "⇥";
const INCOMPLETE = "\ufffd"; // what the Studio sends for a part of a character

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

// A number of so many digits after the point; never a minus before nothing.
const fixed = (number, digits) => number.toFixed(digits).replace(/^-(?=[0.]*$)/, "");

// What stands for a character that could not be seen, or would move the text around it.
function signFor(character) {
  const code = character.codePointAt(0);
  if (character === "\n") return "⏎";
  if (character === "\t") return TAB;
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  if (code === 127) return "␡";
  if (character === INCOMPLETE) return "�";
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
  if (text === INCOMPLETE) return node.append(make("span", "sign", "� part of a character"));
  const [, before, middle, after] = /^( *)(.*?)( *)$/su.exec(text);
  if (before) node.append(make("span", "sign space", "␣".repeat(before.length)));
  if (middle || text === "") appendVisible(node, middle);
  if (after) node.append(make("span", "sign space", "␣".repeat(after.length)));
}

function appendVisible(node, text) {
  for (const [run, isSign] of visibleRuns(text)) {
    if (isSign) node.append(make("span", run === TAB ? "sign tab" : "sign", run));
    else node.append(run);
  }
}

// Whether the next token begins a line; a carriage return waits for the line feed after it.
const endsLine = (text, next = "") =>
  /[\n\r\u0085\u2028\u2029]$/.test(text) && !(text.endsWith("\r") && next.startsWith("\n"));

// A token's elements, one for each line of the text that it reaches. `piece`: the character that it is
// a part of, where it is one.
function tokenSpans(text, piece) {
  const lines = (hasSpacer(text) ? text.slice(1) : text).split(AFTER_BREAK);
  return lines.map((line, index) => {
    const span = make("span", index ? "rest" : "tok");
    if (piece) span.append(make("span", "sign", visibleText(piece) + "…"));
    else appendVisible(span, line);
    return span;
  });
}

// A leading space stands before the span, so that the marks of neighbours do not run together.
const hasSpacer = (text) => /^ \S/.test(text);

// A character's bytes may be spread over tokens: those before the last add no text of their own.
// Answers by such a token the character that it is a part of.
function piecesIn(texts) {
  const pieces = new Map();
  let first = 0; // of the tokens without text that stand before this one
  texts.forEach((text, index) => {
    if (text === INCOMPLETE) return;
    const [character = ""] = text;
    const from = Math.max(first, index - bytesOf(character) + 1);
    for (let at = from; at < index; at++) pieces.set(at, character);
    first = index + 1;
  });
  return pieces;
}

function bytesOf(character) {
  const code = character.codePointAt(0) ?? 0;
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}
