// Ctrl+Enter (or Cmd+Enter) presses the primary button of the open tab.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const button = document.querySelector("#run");
  if (!button || button.disabled || !button.offsetParent) return;
  event.preventDefault();
  // The text box reports what was typed when it loses focus or with the next frame.
  requestAnimationFrame(() => button.click());
});
