// Ctrl+Enter (or Cmd+Enter) presses the primary button of the open tab; Escape its Stop button, before
// anything else hears of the key. Pressed before the Studio has answered, it stops the run once it has.

{
  const ASKING = "#run, #run-sweep, .primary-act, .ask-act";
  const AGAIN_AFTER = 700, MOST_TIMES = 4;
  let asked = null; // the Stop button of a run that was asked for, until it can be pressed
  let isStopWanted = false;

  const inOpenTab = (selector) =>
    [...document.querySelectorAll(selector)].filter((each) => each.offsetParent);

  const answer = new MutationObserver(() => {
    if (asked.disabled) return;
    answer.disconnect();
    if (isStopWanted) asked.click();
    asked = null;
  });

  addEventListener("click", (event) => {
    const [stop] = inOpenTab(".stop-act");
    if (!stop?.disabled || !event.target.closest?.(ASKING)) return;
    if (isAgain) return;
    answer.disconnect();
    [asked, isStopWanted] = [stop, false];
    answer.observe(stop, { attributeFilter: ["disabled"] });
    pressUntilHeard(event.target.closest("button"), stop);
  }, true);

  // A button is enabled again with the last answer of its run, and for a moment longer, until the run
  // is closed, a press of it is dropped. One that was heard and waits for its answer drops further ones.
  let isAgain = false;
  const pressUntilHeard = (button, stop) => {
    const status = document.querySelector("#status");
    const said = status?.innerHTML;
    let times = 0;
    const press = () => {
      if (asked !== stop || !button?.isConnected || button.disabled) return;
      if (status?.innerHTML !== said || ++times > MOST_TIMES) return;
      isAgain = true;
      button.click();
      isAgain = false;
      setTimeout(press, AGAIN_AFTER);
    };
    setTimeout(press, AGAIN_AFTER);
  };

  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const stops = inOpenTab(".stop-act");
    const stop = stops.find((each) => !each.disabled);
    if (stop) stop.click();
    else if (asked && stops.includes(asked)) isStopWanted = true;
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const button = inOpenTab("#run, .primary-act").find((each) => !each.disabled);
    if (!button) return;
    event.preventDefault();
    // The text box reports what was typed when it loses focus or with the next frame.
    requestAnimationFrame(() => button.click());
  });
}
