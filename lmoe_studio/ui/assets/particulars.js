// What is particular to a router, in words: how many experts act, with what weight in all, which threshold
// they reach, the token's type. Of a plain softmax there is nothing to say.

function readNotes(notes = {}, cells) {
  const type = notes.type ? decodeBytes(notes.type) : null;
  return {
    threshold: decodeSteps(notes.threshold, cells),
    isReached: Boolean(notes.is_reached),
    whose: notes.threshold?.values ? "this token's" : "the",
    types: notes.types ?? [],
    type,
    typeOf: (token) => notes.types[type[token]],
  };
}

// Whether no expert acts on a token: at a layer, or at all of them.
function isSilent({ active, L }, token, layer) {
  if (!active) return false;
  if (layer >= 0) return active[token * L + layer] === 0;
  return silentLayers({ active, L }, token) === L;
}

function silentLayers({ active, L }, token) {
  if (!active) return 0;
  return active.subarray(token * L, (token + 1) * L).reduce((count, n) => count + (n === 0), 0);
}

// The tokens on which no expert acts: at a layer, or at one of them at least.
function silentTokens(view, layer) {
  const tokens = Array.from({ length: view.T }, (_, token) => token);
  if (!view.active) return [];
  return tokens.filter((token) =>
    layer < 0 ? silentLayers(view, token) > 0 : isSilent(view, token, layer));
}

// Sentences about some tokens at a layer, or at all layers.
function wordsOf(view, lo, hi, layer) {
  const isCell = lo === hi && layer >= 0;
  const words = isCell ? wordsOfCell(view, lo, layer) : wordsOfMany(view, lo, hi, layer);
  return [...words, ...wordsOfTypes(view, lo, hi)];
}

function wordsOfCell(view, token, layer) {
  const cell = token * view.L + layer;
  const { threshold, isReached, whose } = view.notes;
  const least = threshold && `threshold ${threshold[cell].toFixed(2)}`;
  const alone = least && `${whose[0].toUpperCase()}${whose.slice(1)} ${least}.`;
  if (!view.active) return alone ? [alone] : [];
  const decides = least && isReached && !view.isTouched(token, layer);
  const count = rounded(view.active[cell]);
  if (count === 0) {
    return ["No expert: the base model alone." + (decides ? ` None reaches ${whose} ${least}.` : "")];
  }
  const mass = fixed(view.mass[cell], 2);
  const sum = count === 1 ? `its weight is ${mass}` : `their weights sum to ${mass}`;
  const s = count === 1 ? "s" : "";
  if (decides) return [`${count} of ${view.K} experts ${s ? "reaches" : "reach"} ${whose} ${least}; ${sum}.`];
  return [`${count} of ${view.K} experts act${s}; ${sum}.` + (alone ? " " + alone : "")];
}

function wordsOfMany(view, lo, hi, layer) {
  const { threshold } = view.notes;
  const mean = (values) => meanOfCells(view, values, lo, hi, layer);
  const words = [];
  if (view.active) {
    words.push(`On average ${rounded(mean(view.active))} of ${view.K} experts act; their weights sum to ` +
      `${fixed(mean(view.mass), 2)}.`);
    if (lo === hi) {
      const layers = silentLayers(view, lo);
      if (layers) words.push(`No expert in ${layers} of ${view.L} layers.`);
    }
  }
  if (threshold) words.push(`Mean threshold: ${mean(threshold).toFixed(2)}.`);
  return words;
}

function wordsOfTypes({ notes }, lo, hi) {
  if (!notes.type) return [];
  if (lo === hi) return [`Type: ${notes.typeOf(lo).name}.`];
  const said = countTypes(notes, lo, hi)
    .flatMap((count, type) => (count ? [`${notes.types[type].name} ${count.toLocaleString("en")}`] : []));
  return [`Types: ${said.join(", ")}.`];
}

function countTypes({ types, type }, lo, hi) {
  const counts = types.map(() => 0);
  for (let token = lo; token <= hi; token++) counts[type[token]] += 1;
  return counts;
}

// Of one token at one layer, what the Studio has told of it.
function wordsOfNotes(notes = {}, experts) {
  const { neighbour, neighbour_distance: distance, path, path_weight: share, ...others } = notes;
  const lists = Object.entries(others).map(([name, values]) => `${name}: ${values.map(rounded).join(", ")}.`);
  if (neighbour) {
    const found = neighbour.map((row, i) => row + (distance ? ` (distance ${distance[i].toFixed(2)})` : ""));
    lists.unshift(`Nearest examples: ${found.join(", ")}.`);
  }
  if (path) {
    const nodes = path.map((k) => `${experts[k].glyph} ${experts[k].name}`).join(" → ");
    lists.unshift(`Heaviest path: ${nodes}${share ? `, ${fixed(share[0], 2)} of the token` : ""}.`);
  }
  return lists.join(" ");
}

const rounded = (number) => Number(number.toFixed(Number.isInteger(number) ? 0 : 2));

function meanOfCells({ L }, values, lo, hi, layer) {
  const [first, last] = layer < 0 ? [0, L - 1] : [layer, layer];
  let sum = 0;
  for (let token = lo; token <= hi; token++) {
    for (let l = first; l <= last; l++) sum += values[token * L + l];
  }
  return sum / Math.max(1, (hi - lo + 1) * (last - first + 1));
}
