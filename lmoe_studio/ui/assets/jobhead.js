// One job: its state, how far it is, and what can be done with it.

const ACTS = { open: "Load into Explore", resume: "Resume", stop: "Stop and save", remove: "Remove" };
const ASK = { done: "Remove the job? Its bank stays.", other: "Remove the job with its checkpoints and its log?" };
const STATES = { queued: "…", running: "▶", done: "✓", failed: "!", cancelled: "■", interrupted: "↯" };

const root = element.querySelector(".jobs");
const job = make("section", "job");
const live = make("div", "live");
live.setAttribute("role", "status");
root.replaceChildren(job, live);
let asking = ""; // id of the job that is about to be removed
let told = "";

function act(id, what) {
  asking = "";
  for (const button of job.querySelectorAll(".acts button")) button.disabled = true;
  trigger("act", { id, act: what });
}

function pressable(text, className, onClick) {
  const button = make("button", className, text);
  button.type = "button";
  button.addEventListener("click", onClick);
  return button;
}

function drawActs(value) {
  const acts = make("div", "acts");
  if (asking === value.id) {
    acts.append(
      make("span", "ask", ASK[value.state] ?? ASK.other),
      pressable("Remove", "first", () => act(value.id, "remove")),
      pressable("Keep", "", () => {
        asking = "";
        show();
        job.querySelector('[data-act="remove"]')?.focus();
      }),
    );
    return acts;
  }
  for (const what of value.acts) {
    const isFirst = what !== "remove" && what !== "stop";
    const text = what === "stop" && value.stopping ? "Stopping…" : ACTS[what];
    const button = pressable(text, isFirst ? "first" : "", () => {
      if (what !== "remove") return act(value.id, what);
      asking = value.id;
      show();
      job.querySelector(".acts button")?.focus();
    });
    button.dataset.act = what;
    button.disabled = what === "stop" && Boolean(value.stopping);
    acts.append(button);
  }
  return acts;
}

function drawBar(value) {
  const share = value.steps ? value.step / value.steps : 0;
  const track = make("div", "track");
  const bar = make("i");
  track.setAttribute("role", "progressbar");
  track.setAttribute("aria-label", "Steps");
  track.setAttribute("aria-valuemin", "0");
  track.setAttribute("aria-valuemax", String(value.steps));
  const isUnknown = value.state === "running" && !value.step;
  if (isUnknown) track.classList.add("unknown");
  else {
    track.setAttribute("aria-valuenow", String(value.step));
    bar.style.width = 100 * share + "%";
  }
  track.append(bar);
  return track;
}

function show() {
  const value = props.value;
  if (!value) return;
  const focused = job.contains(document.activeElement) ? document.activeElement.dataset.act : "";
  if (asking && asking !== value.id) asking = "";
  job.className = "job " + value.state;
  const top = make("div", "top");
  const state = make("span", "state");
  state.append(make("i", "", STATES[value.state] ?? "?"), make("span", "", value.state));
  state.firstChild.setAttribute("aria-hidden", "true");
  top.append(make("h3", "", value.name), state, make("code", "", value.id), drawActs(value));
  const facts = make("ul", "facts");
  facts.append(...value.facts.map((fact) => make("li", "", fact)));
  job.replaceChildren(top, drawBar(value), make("p", "says", value.says), facts);
  if (focused) job.querySelector(`[data-act="${focused}"]`)?.focus();
  const tells = `${value.name}: ${value.state}`;
  if (told && told !== tells) say(live, tells);
  told = tells;
}

watch("value", show);
show();
