// Keys of the whole page: to another tab, and the help that names every key.

const KEYS = [
  ["Anywhere", [
    ["Alt+1 … Alt+5", "go to a tab"],
    ["← →", "on a tab: the one beside it; Home and End: the first and the last"],
    ["Ctrl+Enter", "run: Trace, Generate, Compare, Study, Start training"],
    ["Escape", "stop what runs; close the sidebar on a narrow page"],
    ["?", "this help"],
  ]],
  ["Tokens and heatmap", [
    ["← →", "one token on; with Shift the selection grows"],
    ["Page Up, Page Down", "many tokens on"],
    ["Home, End", "the first token, the last"],
    ["↑ ↓", "one layer up or down; below the first are all together"],
    ["1 … 9", "look at one expert alone; once more, or 0: at all"],
    ["Escape", "select nothing"],
  ]],
  ["Compare", [["d", "go to the first token that differs"]]],
];

const tabButtons = () => [...document.querySelectorAll("#tabs [role=tab]")].filter((tab) => tab.offsetParent);

// Which panel a tab shows, for those who cannot see it.
function nameTabPanels() {
  const tab = tabButtons().find((one) => one.getAttribute("aria-selected") === "true");
  const panel = [...document.querySelectorAll("#tabs [role=tabpanel]")].find((one) => one.offsetParent);
  if (!tab || !panel) return;
  panel.id ||= `panel-${tab.textContent.trim().toLowerCase()}`;
  tab.setAttribute("aria-controls", panel.id);
}

function keyHelp() {
  const dialog = document.querySelector("#keys") ?? make("dialog");
  if (!dialog.id) {
    dialog.id = "keys";
    dialog.setAttribute("aria-labelledby", "keys-title");
    const close = make("button", "", "×");
    close.type = "button";
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", () => dialog.close());
    const title = Object.assign(make("h2", "", "Keys"), { id: "keys-title" });
    dialog.append(close, title);
    for (const [where, keys] of KEYS) {
      const list = make("dl");
      for (const [key, act] of keys) list.append(make("dt", "", key), make("dd", "", act));
      dialog.append(make("h3", "", where), list);
    }
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    document.querySelector(".gradio-container").append(dialog);
  }
  if (!dialog.open) dialog.showModal();
}

const isTypedIn = (node) => Boolean(node.closest?.("input, textarea, select, [contenteditable=true]"));

function moveTab(event) {
  const tabs = tabButtons();
  const at = tabs.indexOf(event.target.closest("[role=tab]"));
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return false;
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.click();
  tab.focus();
  return true;
}

function goToTab(number) {
  const all = [...document.querySelectorAll("#tabs [role=tab], #tabs .overflow-dropdown button")];
  const titles = [...new Set(all.map((tab) => tab.textContent.trim()))];
  if (titles[number - 1]) openTab(titles[number - 1]);
}

// In the capturing phase: a key of the open help does nothing behind it.
document.addEventListener("keydown", (event) => {
  const dialog = document.querySelector("#keys[open]");
  if (dialog && event.key === "Escape") {
    dialog.close();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey && /^Digit[1-9]$/.test(event.code) && !dialog) {
    goToTab(Number(event.code.slice(5)));
  } else if (event.key === "?" && !isTypedIn(event.target)) {
    keyHelp();
  } else if (!(event.target.closest?.("#tabs [role=tab]") && moveTab(event))) {
    return;
  }
  event.preventDefault();
  event.stopImmediatePropagation();
  setTimeout(nameTabPanels, 50);
}, true);
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#keys-help")) keyHelp();
  else if (event.target.closest?.("#tabs .tab-wrapper")) setTimeout(nameTabPanels, 50);
});
document.addEventListener("focusin", (event) => event.target.closest?.("#tabs [role=tab]") && nameTabPanels());
