// Tells the page's scripts what there is, and a person when another window has changed the bank.

const root = element.querySelector(".facts");
root.setAttribute("role", "status");

function showChange(from, to) {
  const close = make("button", "quiet", "×");
  close.type = "button";
  close.setAttribute("aria-label", "Close this note");
  close.addEventListener("click", () => root.replaceChildren());
  const what = from === to ? `The bank ${to} was loaded anew` : `The bank was changed from ${from} to ${to}`;
  const words = make("p", "", `${what} in another window. What you see of texts written before is still of the bank that ` +
    "routed them; what you start now uses the new one.");
  root.replaceChildren(words, close);
}

function learn() {
  const before = window.lmoeStudio;
  const now = props.value;
  if (!now) return;
  window.lmoeStudio = now;
  if (before?.bank && before.load !== now.load) {
    if (now.is_own) root.replaceChildren();
    else showChange(before.bank, now.bank);
  }
  dispatchEvent(new CustomEvent("lmoe:studio"));
}

watch("value", learn);
learn();
