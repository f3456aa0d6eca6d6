// The list of jobs, newest first; picking one tells the server and the page.

const root = element.querySelector(".jobs");
const problem = make("p", "problem");
const list = make("ul", "list");
root.replaceChildren(problem, list);
problem.setAttribute("role", "alert");
problem.hidden = true;

function when(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return "";
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday
    ? time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : time.toLocaleDateString([], { day: "numeric", month: "short" });
}

// Where one choice follows another, the last counts: it is read when the server can be asked.
function choose(id) {
  window.lmoeChoice = id;
  trigger("choose");
}

// A row is made once and then changed where it stands: a click must not fall between two of them.
function makeRow(id) {
  const item = make("li");
  const button = Object.assign(make("button"), { type: "button" });
  const name = make("span", "name");
  const state = make("span", "state");
  const mark = make("i");
  const word = make("span");
  const about = make("small");
  const progress = make("small");
  const track = make("span", "track");
  const bar = make("i");
  button.dataset.id = id;
  mark.setAttribute("aria-hidden", "true");
  state.append(mark, word);
  track.append(bar);
  button.append(name, state, about, progress, track);
  button.addEventListener("click", () => choose(id));
  item.append(button);

  function show(job, chosen) {
    button.className = job.state;
    button.setAttribute("aria-current", String(id === chosen));
    say(mark, JOB_MARKS[job.state] ?? "?");
    say(word, job.state);
    say(name, job.name);
    name.title = job.name;
    say(about, id + " · " + when(job.when));
    say(progress, job.progress);
    bar.style.width = 100 * job.share + "%";
  }

  return { item, show };
}

const rows = new Map();

function show() {
  const value = props.value;
  if (!value) return;
  problem.hidden = !value.problem;
  say(problem, value.problem);
  for (const id of rows.keys()) {
    if (value.jobs.some((job) => job.id === id)) continue;
    rows.get(id).item.remove();
    rows.delete(id);
  }
  value.jobs.forEach((job, place) => {
    if (!rows.has(job.id)) rows.set(job.id, makeRow(job.id));
    const { item, show: showRow } = rows.get(job.id);
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
    showRow(job, value.chosen);
  });
  root.dataset.shows = value.mark;
  window.lmoeJob = value.chosen;
  window.dispatchEvent(new CustomEvent("lmoe:job"));
}

watch("value", show);
show();
