// What the page knows of the Studio: the loaded bank with its experts, and what can be chosen from.
// facts.js brings it; whoever is drawn late finds it here.

// Calls the listener with what is known: now, and whenever it changes.
function onStudio(listener) {
  addEventListener("lmoe:studio", () => listener(window.lmoeStudio));
  if (window.lmoeStudio) listener(window.lmoeStudio);
}

// Whether something that names its bank, and perhaps its experts, is of the loaded bank.
function isOfLoadedBank({ bank, experts }) {
  const studio = window.lmoeStudio;
  if (!studio?.bank || !bank) return true;
  const names = (list) => JSON.stringify(list.map(({ name }) => name));
  return bank === studio.bank && (!experts || names(experts) === names(studio.experts));
}

// What to say of something that another bank made; nothing for the loaded one.
function otherBank(made) {
  if (isOfLoadedBank(made)) return [];
  const { bank } = window.lmoeStudio;
  const other = bank === made.bank ? `the bank ${bank} as it was before` : `the bank ${made.bank}, and ${bank} is loaded now`;
  return [`This was made with ${other}. Its letters and colours are those of its own experts.`];
}
