// The sidebar on a narrow page: it lies over the rest, so it closes as easily as a menu.

const isNarrow = matchMedia("(max-width: 900px)");

function closeSidebar() {
  const handle = isNarrow.matches && document.querySelector("#sidebar.open .toggle-button");
  if (handle) handle.click();
  return Boolean(handle);
}

isNarrow.addEventListener("change", closeSidebar);
// In the capturing phase: the key that closes the sidebar stops nothing else.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && closeSidebar()) event.preventDefault();
}, true);
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest?.("#sidebar")) closeSidebar();
});
