// What a plan would make of the text shown, asked of the Studio: one question at a time and always
// the newest, so that a slider is followed as fast as answers come.

const PATIENCE = 5000; // milliseconds after which an answer is late
const LATE = "The Studio has not answered yet.";

// `ask` sends a question; `show` is given the answers that still count.
function makePreviews(ask, show) {
  let open = null; // waits for its answer
  let next = null; // has come meanwhile
  let serial = 0;
  let timer = 0;

  function send(question) {
    open = question;
    next = null;
    serial += 1;
    clearTimeout(timer);
    timer = setTimeout(late, PATIENCE);
    ask({ ...question, serial });
  }

  // Lost or slow: the newest question is asked without waiting, and a late answer still counts.
  function late() {
    open.isLate = true;
    if (next) send(next);
    else if (!open.isMoot) show({ problem: LATE });
  }

  function take(answer) {
    if (!open || answer.serial !== serial) return;
    clearTimeout(timer);
    const { isMoot } = open;
    open = null;
    if (next) send(next);
    if (!isMoot) show(answer);
  }

  function want(question) {
    if (open && !open.isLate) next = question;
    else send(question);
  }

  // No preview is wanted any more.
  function drop() {
    next = null;
    if (open) open.isMoot = true;
  }

  return { want, take, drop, isOpen: () => Boolean(open && !open.isLate && !open.isMoot) };
}
