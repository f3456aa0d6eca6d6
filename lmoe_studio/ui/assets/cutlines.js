// Long lines of the strip, cut where they wrap: a change to a token lays out its box, and in one box of
// thousands of tokens that would take long. The text looks the same, as each row is filled by itself.

const LEAST_CUT = 48; // tokens in a box, except for the last of a line

function makeLineBox() {
  const box = make("div", "line");
  box.setAttribute("role", "presentation");
  return box;
}

// Lines as { box, first, goesOn }: a box, its first token, and whether it is a line's later part.
function cutLines(lines) {
  // First all that is measured, then all that is changed: each change would have it laid out anew.
  const measured = lines.map((line) => [line, cutsOf(line.box)]);
  return measured.flatMap(([line, cuts]) => {
    const later = cuts.reverse().map((start) => {
      const rest = document.createRange();
      rest.setStartBefore(start);
      rest.setEndAfter(line.box.lastChild);
      const box = makeLineBox();
      box.append(rest.extractContents());
      line.box.after(box);
      return { box, first: Number(start.dataset.index), goesOn: true };
    });
    return [line, ...later.reverse()];
  });
}

// The elements of a box that stand first in a row and far enough apart.
function cutsOf(box) {
  const tokens = box.querySelectorAll(":scope > [data-index]");
  const cuts = [];
  if (tokens.length < 2 * LEAST_CUT) return cuts;
  let last = 0;
  let bottom = tokens[0].getBoundingClientRect().bottom;
  for (let i = 1; i < tokens.length; i++) {
    const rect = tokens[i].getBoundingClientRect();
    const isFirst = rect.top >= bottom && !tokens[i].previousElementSibling.matches(".boundary");
    if (isFirst && i - last >= LEAST_CUT) {
      cuts.push(tokens[i]);
      last = i;
    }
    bottom = rect.bottom;
  }
  return cuts;
}

// The lines as they were before they were cut.
function joinLines(lines) {
  const whole = [];
  for (const line of lines) {
    if (!line.goesOn) whole.push(line);
    else {
      whole.at(-1).box.append(...line.box.childNodes);
      line.box.remove();
    }
  }
  return whole;
}
