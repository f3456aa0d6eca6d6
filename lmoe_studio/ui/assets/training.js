// The page around the Train tab: its address names the job, and a Studio that is gone is said so.

const JOB_MARKS = { queued: "…", running: "▶", done: "✓", failed: "!", cancelled: "■", interrupted: "↯" };
const SILENCE = 9000; // milliseconds without an answer

function isTrainOpen() {
  const part = document.querySelector("#new-bank");
  return Boolean(part && part.offsetParent);
}

// What every look at the jobs is asked with: marks of what stands on the page, if it is to be seen.
function askForJobs() {
  if (!isTrainOpen()) return "";
  return JSON.stringify([...document.querySelectorAll("[data-shows]")].map((one) => one.dataset.shows));
}

// On a narrow page some tabs are in a menu, as plain buttons.
function openTab(title) {
  const tabs = document.querySelectorAll("#tabs [role=tab], #tabs .overflow-dropdown button");
  [...tabs].find((tab) => tab.textContent.trim() === title)?.click();
}

// Where adapters become a bank: a folded part of the Train tab. A tab that is opened for the first time
// folds it once more while it is drawn, so it counts as open when it stays open.
function openImport() {
  closeSidebar();
  openTab("Train");
  let looks = 100, stayed = 0;
  const looking = setInterval(() => {
    const head = document.querySelector("#import-bank > .label-wrap");
    const isOpen = Boolean(head?.classList.contains("open"));
    stayed = isOpen ? stayed + 1 : 0;
    if (head && !isOpen) head.click();
    if (stayed === 1) head.scrollIntoView({ block: "start" });
    if (stayed > 4 || !looks--) clearInterval(looking);
  }, 120);
}

function showAddress() {
  const address = new URL(location.href);
  if (isTrainOpen() && window.lmoeJob) address.searchParams.set("job", window.lmoeJob);
  else if (!isTrainOpen()) address.searchParams.delete("job");
  if (address.href !== location.href) history.replaceState(history.state, "", address);
}

window.addEventListener("lmoe:job", showAddress);
document.addEventListener("click", (event) => {
  if (event.target.closest?.("#training-status button")) openTab("Train");
  if (event.target.closest?.("#tabs .tab-wrapper")) setTimeout(showAddress, 50);
});

const lost = { answered: performance.now(), seen: performance.now(), note: null };
const GONE = "The Studio does not answer";

// The status line says so as well; what it said before stays in it, and is said again.
function sayGone(isGone) {
  const line = document.querySelector("#status .status");
  const words = line?.querySelector("span");
  if (!words || isGone === (words.textContent === GONE)) return;
  if (isGone) Object.assign(line.dataset, { said: words.textContent, look: line.className });
  words.textContent = isGone ? GONE : line.dataset.said;
  line.className = isGone ? "status problem" : line.dataset.look;
}

// Called when the Studio has answered a look.
function studioAnswered() {
  lost.answered = performance.now();
  lost.note?.remove();
  sayGone(false);
  lost.note = null;
}

// Gradio notices at the first question that fails; it says so itself, and loads the page anew when
// the Studio is back.
const hasGradioLost = () => [...document.querySelectorAll(".toast-wrap .error")].some((one) => one.textContent.includes("Connection to the server was lost"));

document.addEventListener("visibilitychange", () => (lost.seen = performance.now()));
setInterval(() => {
  const now = performance.now();
  const isSilent = hasGradioLost() || Math.min(now - lost.answered, now - lost.seen) > SILENCE;
  if (document.hidden || !isSilent || lost.note || !document.querySelector("#tabs")) return;
  sayGone(true);
  lost.note = document.createElement("div");
  lost.note.className = "lost";
  lost.note.setAttribute("role", "alert");
  lost.note.textContent = "The Studio does not answer. Training goes on without it; this page comes back when the Studio does.";
  document.body.append(lost.note);
}, 1000);
