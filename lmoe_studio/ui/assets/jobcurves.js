// The curves of a job. Each stays where it stands while it grows.

const root = element.querySelector(".jobs");
const box = make("div", "curves");
const curves = [];
root.replaceChildren(box);

function show() {
  const value = props.value;
  if (!value) return;
  while (curves.length < value.curves.length) curves.push(makeCurve());
  box.replaceChildren(...curves.slice(0, value.curves.length).map(({ node }) => node));
  value.curves.forEach((curve, place) => curves[place].show(curve, value.steps));
  root.dataset.shows = value.mark;
}

watch("value", show);
show();
