// What the browser keeps: plans by bank, presets, and forms. Others may have written it, or nothing.

const KEPT_PLANS = "lmoe-studio-plans";
const KEPT_PRESETS = "lmoe-studio-presets";
const MOST_PLANS = 30;
const MOST_PRESETS = 50;

// A browser that keeps nothing is no reason to stop.
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch { /* full, or forbidden */ }
}

function kept(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

// Plans are kept as a list of { bank, entries, mixer, plan }, the newest last.
const keptList = (key, name) => {
  const saved = kept(key);
  return Array.isArray(saved) ? saved.filter((one) => typeof one?.[name] === "string") : [];
};
const keptPlan = (bank) => keptList(KEPT_PLANS, "bank").find((one) => one.bank === bank) ?? null;
const keptPresets = () => keptList(KEPT_PRESETS, "name");

function keepPlan(plan) {
  const others = keptList(KEPT_PLANS, "bank").filter((one) => one.bank !== plan.bank);
  keep(KEPT_PLANS, [...others, plan].slice(-MOST_PLANS));
}

function keepPreset(preset) {
  const others = keptPresets().filter((one) => one.name !== preset.name);
  keep(KEPT_PRESETS, [...others, preset].slice(-MOST_PRESETS));
}
