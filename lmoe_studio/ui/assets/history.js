// Undo and redo: states of something as plain data, in the order in which they came.

const MOST_STATES = 100;

// `node` holds the controls that make the changes; `show` is given the state to go back to.
function makeHistory(node, show) {
  const undo = pressable("Undo", "Take back the last change (Ctrl+Z)");
  const redo = pressable("Redo", "Do it again (Ctrl+Shift+Z)");
  let states = []; // as JSON
  let at = -1;
  let control = null; // the one whose input is being handled
  let last = null; // the one that made the newest state, and may go on with it
  let isMoving = false;

  // What a control does at one go, a slider dragged or a word typed, is one step.
  node.addEventListener("input", (event) => (control = event.target), true);
  node.addEventListener("input", () => (control = null));
  node.addEventListener("change", () => (last = null), true);

  function note(state) {
    const made = JSON.stringify(state);
    if (isMoving || made === states[at]) return;
    const goesOn = control && control === last;
    states = [...states.slice(0, goesOn ? at : at + 1), made].slice(-MOST_STATES);
    at = states.length - 1;
    last = control;
    tell();
  }

  function restart() {
    [states, at, last] = [[], -1, null];
    tell();
  }

  function move(to) {
    if (!(to in states)) return;
    [at, last, isMoving] = [to, null, true];
    show(JSON.parse(states[at]));
    isMoving = false;
    tell();
    if (!node.contains(document.activeElement)) (undo.disabled ? redo : undo).focus();
  }

  function tell() {
    undo.disabled = at < 1;
    redo.disabled = at >= states.length - 1;
  }

  undo.addEventListener("click", () => move(at - 1));
  redo.addEventListener("click", () => move(at + 1));
  node.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || event.altKey || !"zy".includes(key)) return;
    if (event.target.closest("[data-own-undo]")) return;
    event.preventDefault();
    move(key === "y" || event.shiftKey ? at + 1 : at - 1);
  });
  return { undo, redo, note, restart };
}
