// The token strip: the text itself, each token marked with how it was routed.

const MARGIN = 40; // tokens painted beyond the visible ones

function makeStrip(view, act) {
  const node = make("div", "strip");
  node.tabIndex = 0;
  node.setAttribute("role", "listbox");
  node.setAttribute("aria-multiselectable", "true");
  node.setAttribute("aria-label", "Tokens");
  const prefix = "tok-" + Math.random().toString(36).slice(2) + "-";
  let parts = []; // by token: its elements, more than one where it has text after a line break
  let lines = []; // { box, first }: a line's box, or one of its boxes, and its first token
  let cutFor = 0; // the width that lines are cut for
  let version = 0;
  let painted = [];
  let selected = [];

  // As a text grows, the strip follows its end, unless someone has scrolled away from it.
  function build() {
    const { live } = view.data.run ?? {};
    const before = node.scrollTop;
    const atEnd = node.scrollHeight - node.clientHeight - before < 40;
    lines = [];
    const room = 1 + Math.max(...view.data.experts.map(({ glyph }) => glyph.length));
    node.classList.toggle("wide", room > 2);
    node.classList.toggle("typed", Boolean(view.notes.type));
    parts = view.data.tokens.map((text, index) => {
      const spans = tokenSpans(text, view.pieces.get(index));
      spans[0].id = prefix + index;
      spans[0].setAttribute("role", "option");
      for (const span of spans) {
        span.dataset.index = index;
        if (view.notes.type) span.style.setProperty("--type", view.notes.typeOf(index).colour);
        if (view.flags[index] & SPECIAL) span.classList.add("special");
      }
      // Room for the letter, so that those of neighbours do not run together.
      spans[0].classList.toggle("short", spans[0].textContent.length < room);
      return spans;
    });
    node.replaceChildren(...linesOf(parts));
    cutFor = 0;
    cut();
    node.scrollTop = view.goesOn ? before : 0;
    if (live && atEnd) node.scrollTop = node.scrollHeight;
    selected = [];
    markSelection();
    painted = new Int32Array(parts.length);
    paint();
  }

  // A box for each line of the text, so that a change on one leaves the others as they are.
  function linesOf(parts) {
    const boxes = [];
    let line = null;
    const begin = (first) => {
      line = makeLineBox();
      lines.push({ box: line, first });
      boxes.push(line);
    };
    parts.forEach((spans, index) => {
      if (!line) begin(index);
      if (view.flags[index] & GENERATED && !(view.flags[index - 1] & GENERATED)) {
        line.append(make("span", "boundary", "generated"));
      }
      if (hasSpacer(view.data.tokens[index])) line.append(" ");
      spans.forEach((span, number) => {
        if (number) begin(index);
        line.append(span);
      });
      if (endsLine(view.data.tokens[index], view.data.tokens[index + 1])) line = null;
    });
    if (!line) boxes.push(make("div", "line")); // what comes next stands on a line of its own
    return boxes;
  }

  // Where lines wrap depends on the width; without one nothing is seen.
  function cut() {
    const width = node.clientWidth;
    if (!width || width === cutFor || !parts.length) return;
    if (cutFor) lines = joinLines(lines);
    lines = cutLines(lines);
    cutFor = width;
  }

  // Indices of the tokens that can be seen, found by halving: first lines, then tokens in them.
  function visibleRange() {
    const box = node.getBoundingClientRect();
    const above = (element) => element.getBoundingClientRect().bottom < box.top;
    const notBelow = (element) => element.getBoundingClientRect().top <= box.bottom;
    const firstLine = countWhile(0, lines.length, (i) => above(lines[i].box));
    const lastLine = countWhile(firstLine, lines.length, (i) => notBelow(lines[i].box));
    const [from, to] = [startOf(firstLine), startOf(lastLine)];
    const first = countWhile(from, to, (i) => above(parts[i].at(-1)));
    const last = countWhile(first, to, (i) => notBelow(parts[i][0]));
    return [Math.max(0, first - MARGIN), Math.min(parts.length, last + MARGIN)];
  }

  const startOf = (line) => (line < lines.length ? lines[line].first : parts.length);

  // The first index from `low` on for which a condition, true at first, no longer holds.
  function countWhile(low, high, holds) {
    while (low < high) {
      const middle = (low + high) >> 1;
      if (holds(middle)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function paint() {
    version++;
    paintVisible();
  }

  function paintVisible() {
    if (!parts.length) return;
    const [first, last] = visibleRange();
    const rows = view.rowsAt(view.layer);
    const experts = view.inView();
    for (let t = first; t < last; t++) {
      if (painted[t] === version) continue;
      painted[t] = version;
      if (!(view.flags[t] & SPECIAL)) paintToken(parts[t], t, rows, experts);
    }
  }

  function paintToken(spans, t, rows, experts) {
    const offset = view.offsetAt(t, view.layer);
    const touched = view.isTouched(t, view.layer);
    const silent = isSilent(view, t, view.layer);
    const { background, border, glyph } = view.colour === "entropy"
      ? lookOfEntropy(t) : lookOfExpert(rows, offset, experts);
    for (const span of spans) {
      span.classList.toggle("overridden", touched);
      span.classList.toggle("silent", silent);
      span.style.backgroundColor = background;
      span.style.borderBottomColor = border;
    }
    if (glyph) spans[0].dataset.glyph = glyph;
    else delete spans[0].dataset.glyph;
  }

  function lookOfEntropy(t) {
    const entropy = view.entropyShare(t, view.layer);
    const background = `rgba(128, 132, 145, ${(0.55 * entropy ** 2 * view.gain).toFixed(3)})`;
    return { background, border: "transparent" };
  }

  function lookOfExpert(rows, offset, experts) {
    const k = strongest(rows, offset, experts);
    const weight = Math.min(1, (rows[offset + k] / 255) * view.gain);
    const rgb = view.rgb[k].join(", ");
    const hasGlyph = view.glyphs && weight > (experts.length > 1 ? 0 : 1 / view.K);
    return {
      background: `rgba(${rgb}, ${(0.45 * weight).toFixed(3)})`,
      border: `rgba(${rgb}, ${(weight ? 0.12 + 0.88 * weight : 0).toFixed(3)})`,
      glyph: hasGlyph && view.data.experts[k].glyph,
    };
  }

  function markSelection() {
    for (const span of selected) {
      span.classList.remove("selected", "first", "last");
      span.removeAttribute("aria-selected");
    }
    selected = view.lo < 0 ? [] : parts.slice(view.lo, view.hi + 1).flat();
    for (const span of selected) {
      span.classList.add("selected");
      if (span.id) span.setAttribute("aria-selected", "true");
    }
    if (!selected.length) return node.removeAttribute("aria-activedescendant");
    selected[0].classList.add("first");
    selected[selected.length - 1].classList.add("last");
    node.setAttribute("aria-activedescendant", prefix + act.cursor());
  }

  // Scrolls the strip itself, never the page.
  function reveal(index) {
    const box = node.getBoundingClientRect();
    const rect = parts[index][0].getBoundingClientRect();
    if (rect.top < box.top + 14) node.scrollTop -= box.top + 24 - rect.top;
    else if (rect.bottom > box.bottom) node.scrollTop += rect.bottom - box.bottom + 12;
  }

  const indexUnder = (event) => {
    const span = event.target.closest(".tok, .rest");
    return span ? Number(span.dataset.index) : NONE;
  };
  let dragging = false;
  node.addEventListener("pointerdown", (event) => {
    const index = indexUnder(event);
    if (index < 0 || event.button !== 0 || event.pointerType !== "mouse") return;
    dragging = true;
    act.pick(index, event.shiftKey);
  });
  node.addEventListener("pointermove", (event) => {
    const index = indexUnder(event);
    if (dragging && event.buttons & 1) {
      if (index >= 0 && index !== act.cursor()) act.pick(index, true);
    } else {
      dragging = false;
      act.point(event, index, view.layer);
    }
  });
  node.addEventListener("pointerup", () => (dragging = false));
  node.addEventListener("pointerleave", () => act.point(null));
  // A finger selects when it has tapped, not when it begins to scroll; a screen reader clicks
  // without any pointer.
  node.addEventListener("click", (event) => {
    const index = indexUnder(event);
    if (index >= 0 && event.pointerType !== "mouse") act.pick(index, event.shiftKey);
  });
  let scheduled = false;
  node.addEventListener("scroll", () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      paintVisible();
    });
  }, { passive: true });
  new ResizeObserver(() => {
    cut();
    paintVisible();
  }).observe(node);

  // A token's element; behind the last one, a mark for the end of the text.
  function partAt(index) {
    if (index < parts.length) return parts[index][0];
    const end = make("span", "sign end", "∎");
    (lines.at(-1)?.box ?? node).append(end);
    return end;
  }

  return { node, build, paint, markSelection, reveal, partAt };
}
