// What the page knows of the Studio: the loaded bank with its experts, and what can be chosen from.
// facts.js brings it; whoever is drawn late finds it here.

// Calls the listener with what is known: now, and whenever it changes.
function onStudio(listener) {
  addEventListener("lmoe:studio", () => listener(window.lmoeStudio));
  if (window.lmoeStudio) listener(window.lmoeStudio);
}

// Whether something that names its bank and experts, such as a trace, is of the loaded bank.
function isOfLoadedBank({ bank, experts }) {
  const studio = window.lmoeStudio;
  const names = (list) => JSON.stringify(list.map(({ name }) => name));
  return !studio?.bank || (bank === studio.bank && names(experts) === names(studio.experts));
}
