// The list of jobs, newest first; picking one tells the server and the page.

const root = element.querySelector(".jobs");
const problem = make("p", "problem");
const list = make("ul", "list");
root.replaceChildren(problem, list);
problem.setAttribute("role", "alert");
problem.hidden = true;

const STATES = { queued: "…", running: "▶", done: "✓", failed: "!", cancelled: "■", interrupted: "↯" };

function when(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return "";
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday
    ? time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : time.toLocaleDateString([], { day: "numeric", month: "short" });
}

function drawRow(job, chosen) {
  const item = make("li");
  const button = make("button", job.state);
  button.type = "button";
  button.dataset.id = job.id;
  button.setAttribute("aria-current", String(job.id === chosen));
  const state = make("span", "state");
  state.append(make("i", "", STATES[job.state] ?? "?"), make("span", "", job.state));
  state.firstChild.setAttribute("aria-hidden", "true");
  const name = make("span", "name", job.name);
  name.title = job.name;
  const track = make("span", "track");
  const bar = make("i");
  bar.style.width = 100 * job.share + "%";
  track.append(bar);
  button.append(name, state, make("small", "", job.id + " · " + when(job.when)), make("small", "", job.progress), track);
  button.addEventListener("click", () => trigger("choose", { id: job.id }));
  item.append(button);
  return item;
}

function show() {
  const value = props.value;
  if (!value) return;
  const focused = document.activeElement?.closest?.(".list button")?.dataset.id;
  problem.hidden = !value.problem;
  say(problem, value.problem);
  list.replaceChildren(...value.jobs.map((job) => drawRow(job, value.chosen)));
  if (focused) list.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  window.lmoeJob = value.chosen;
  window.dispatchEvent(new CustomEvent("lmoe:job"));
}

watch("value", show);
show();
