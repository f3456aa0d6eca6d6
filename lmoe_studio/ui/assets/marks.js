// Above the token strip, where there is something of it: how many tokens have no expert, and token types
// from the first token to the last.

function makeMarks(view, act) {
  const node = make("div", "marks");
  const row = make("div", "row");
  const silent = make("button", "toggle silences");
  const types = make("div", "row types");
  const canvas = make("canvas");
  silent.type = "button";
  silent.title = "They get the base model alone. Click: the next of them.";
  canvas.setAttribute("role", "img");
  row.append(silent, types);
  let found = []; // tokens without an expert

  function build() {
    const { notes, T } = view;
    types.hidden = !notes.type;
    node.replaceChildren(row, ...(notes.type ? [canvas] : []));
    if (notes.type) drawTypes(notes, T);
    show();
  }

  function drawTypes(notes, T) {
    const counts = countTypes(notes, 0, T - 1);
    types.replaceChildren(...notes.types.map(({ name, colour }, type) => {
      const item = make("span", "type");
      item.style.setProperty("--type", colour);
      item.append(make("i"), make("span", "name", name),
        make("span", "count", counts[type].toLocaleString("en")));
      return item;
    }));
    canvas.setAttribute("aria-label", "Token types: " +
      notes.types.map(({ name }, type) => `${name} ${counts[type]}`).join(", "));
    canvas.width = Math.max(1, T);
    canvas.height = 1;
    const context = canvas.getContext("2d");
    for (let token = 0; token < T; token++) {
      context.fillStyle = notes.typeOf(token).colour;
      context.fillRect(token, 0, 1, 1);
    }
  }

  // It stays where there are some in any layer, so that nothing moves as layers change.
  function show() {
    found = silentTokens(view, view.layer);
    silent.hidden = !silentTokens(view, ALL_LAYERS).length;
    silent.disabled = !found.length;
    row.hidden = silent.hidden && types.hidden;
    node.hidden = row.hidden;
    const many = found.length === 1 ? "1 token has" : found.length.toLocaleString("en") + " tokens have";
    const where = view.layer < 0 ? " in some layer" : " in layer " + view.data.layers[view.layer];
    say(silent, found.length ? `${many} no expert${where}` : `Every token has an expert${where}`);
  }

  // The next of them after what is selected, and from the end the first.
  silent.addEventListener("click", () => {
    const cursor = view.lo < 0 ? NONE : act.cursor();
    act.pick(found.find((token) => token > cursor) ?? found[0]);
  });
  const tokenUnder = (event) => {
    const rect = canvas.getBoundingClientRect();
    const token = Math.floor(((event.clientX - rect.left) / rect.width) * view.T);
    return Math.min(Math.max(token, 0), view.T - 1);
  };
  canvas.addEventListener("click", (event) => act.pick(tokenUnder(event), event.shiftKey));
  canvas.addEventListener("pointermove", (event) => act.point(event, tokenUnder(event), view.layer));
  canvas.addEventListener("pointerleave", () => act.point(null));

  return { node, build, show };
}
