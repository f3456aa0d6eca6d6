// One job: its state, how far it is, and what can be done with it.

const ACTS = { open: "Load into Explore", resume: "Resume", stop: "Stop and save", remove: "Remove" };
const ASK = { done: "Remove the job? Its bank stays.", other: "Remove the job with its checkpoints and its log?" };
const root = element.querySelector(".jobs");
const job = make("section", "job");
const live = make("div", "live");
live.setAttribute("role", "status");
const name = make("h3");
const state = make("span", "state");
const mark = make("i");
const word = make("span");
const id = make("code");
const acts = make("div", "acts");
const top = make("div", "top");
const track = make("div", "track");
const bar = make("i");
const says = make("p", "says");
const facts = make("ul", "facts");
mark.setAttribute("aria-hidden", "true");
track.setAttribute("role", "progressbar");
track.setAttribute("aria-label", "Steps");
track.setAttribute("aria-valuemin", "0");
state.append(mark, word);
track.append(bar);
top.append(name, state, id, acts);
job.append(top, track, says, facts);
root.replaceChildren(job, live);
let asking = ""; // id of the job that is about to be removed
let told = "";

function act(job, what) {
  asking = "";
  for (const button of acts.querySelectorAll("button")) button.disabled = true;
  trigger("act", { id: job, act: what });
}

function pressable(text, className, onClick) {
  const button = make("button", className, text);
  button.type = "button";
  button.addEventListener("click", onClick);
  return button;
}

// What the buttons are, as a mark: they are made anew only when it changes, as a click must not fall
// between two of them.
const marked = (value) => JSON.stringify([value.id, value.state, value.acts, value.stopping, value.answered, asking]);

function drawActs(value) {
  const nodes = [];
  if (asking === value.id) {
    nodes.push(
      make("span", "ask", ASK[value.state] ?? ASK.other),
      pressable("Remove", "first", () => act(value.id, "remove")),
      pressable("Keep", "", () => {
        asking = "";
        show();
        acts.querySelector('[data-act="remove"]')?.focus();
      }),
    );
    return nodes;
  }
  for (const what of value.acts) {
    const isFirst = what !== "remove" && what !== "stop";
    const text = what === "stop" && value.stopping ? "Stopping…" : ACTS[what];
    const button = pressable(text, isFirst ? "first" : "", () => {
      if (what !== "remove") return act(value.id, what);
      asking = value.id;
      show();
      acts.querySelector("button")?.focus();
    });
    button.dataset.act = what;
    button.disabled = what === "stop" && Boolean(value.stopping);
    nodes.push(button);
  }
  return nodes;
}

function showBar(value) {
  const isUnknown = value.state === "running" && !value.step;
  track.classList.toggle("unknown", isUnknown);
  track.setAttribute("aria-valuemax", String(value.steps));
  if (isUnknown) track.removeAttribute("aria-valuenow");
  else track.setAttribute("aria-valuenow", String(value.step));
  bar.style.width = isUnknown ? "" : 100 * (value.steps ? value.step / value.steps : 0) + "%";
}

function show() {
  const value = props.value;
  if (!value) return;
  if (asking && asking !== value.id) asking = "";
  job.className = "job " + value.state;
  say(name, value.name);
  say(mark, JOB_MARKS[value.state] ?? "?");
  say(word, value.state);
  say(id, value.id);
  say(says, value.says);
  showBar(value);
  facts.replaceChildren(...value.facts.map((fact) => make("li", "", fact)));
  if (acts.dataset.mark !== marked(value)) {
    const focused = acts.contains(document.activeElement) ? document.activeElement.dataset.act : "";
    acts.replaceChildren(...drawActs(value));
    acts.dataset.mark = marked(value);
    if (focused) acts.querySelector(`[data-act="${focused}"]`)?.focus();
  }
  const tells = `${value.name}: ${value.state}`;
  if (told && told !== tells) say(live, tells);
  told = tells;
  root.dataset.shows = value.mark;
}

watch("value", show);
show();
