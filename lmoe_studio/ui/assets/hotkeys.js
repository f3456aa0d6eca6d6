// Ctrl+Enter (or Cmd+Enter) presses the primary button of the open tab; Escape its Stop button.
document.addEventListener("keydown", (event) => {
  const isRun = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  const isStop = event.key === "Escape" && !event.defaultPrevented;
  if (!isRun && !isStop) return;
  const buttons = document.querySelectorAll(isRun ? "#run, .primary-act" : ".stop-act");
  const button = [...buttons].find((each) => each.offsetParent && !each.disabled);
  if (!button) return;
  event.preventDefault();
  // The text box reports what was typed when it loses focus or with the next frame.
  requestAnimationFrame(() => button.click());
});
