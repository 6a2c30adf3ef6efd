// The page of a run: what it measured, to read.

import {$, el, keyField, read} from "./web.js";
import {lines} from "./charts.js";

const LINKS = {
  "report.html": ["The report", "all that was measured, with replies"],
  "sheet.html": ["The blind reading page", "grade replies without knowing who wrote them; download your verdicts before you close it"],
};
const STAGES = {clone: "Behaviour cloning", offline: "Offline RL", online: "Online RL"};
const number = x => (x === null || x === undefined ? "–" : x.toFixed(2).replace("-", "−"));

function thin(points, most = 300) {
  const step = Math.ceil(points.length / most);
  return points.filter((_, i) => i % step === 0 || i === points.length - 1);
}

function table(caption, heads, rows) {
  return el("table", {}, el("caption", {class: "unseen"}, caption), el("thead", {}, el("tr", {}, ...heads.map(head => el("th", {scope: "col"}, head)))),
    el("tbody", {}, ...rows.map(([first, ...row]) => el("tr", {}, el("th", {scope: "row"}, first), ...row.map(cell => el("td", {}, String(cell)))))));
}

function fill(id, rows, ...children) {
  $(id).hidden = !rows.length;
  const place = $(id).querySelector(".scroll") ?? $(id);
  if (place !== $(id)) place.replaceChildren();
  else place.querySelectorAll(".stage").forEach(old => old.remove());
  if (rows.length) place.append(...children);
}

async function start() {
  let run;
  try {
    $("key-label").hidden = !(await read("/v1/page")).keys;
    run = await read("/v1/run");
  } catch (error) {
    $("status").textContent = error.status === 404 ? "This server serves a policy, and no run."
      : error.status === 403 ? "The run is for admins' keys." : error.message;
    return;
  }
  $("status").textContent = "";
  $("name").textContent = run.name;
  document.title = `${run.name} · pamdp`;
  const pages = Object.entries(run.pages);
  $("pages").hidden = !pages.length;
  $("links").replaceChildren(...pages.map(([name, href]) => el("li", {}, el("a", {href, target: "_blank", rel: "noopener"}, LINKS[name][0]), `: ${LINKS[name][1]}`)));
  const stages = Object.entries(run.curves);
  fill("curves", stages, ...stages.map(([stage, curves]) => el("div", {class: "stage"}, el("h3", {}, STAGES[stage] ?? (stage || "Log")),
    el("div", {class: "grid"}, ...Object.entries(curves).filter(([, points]) => points.length > 1).map(([name, points]) =>
      el("figure", {}, el("figcaption", {}, name.replaceAll("_", " "), el("b", {}, number(points.at(-1)[1]))), lines([{name, points: thin(points), style: "first"}], {label: `${name} by step`, height: 120})))))));
  fill("rates", run.rates, table("Success rates", ["Method", "against", "under", "success rate", "95 % interval", "wins", "ties", "losses", "users"],
    run.rates.map(r => [r.method, r.baseline, r.judge, number(r.rate), `${number(r.low)} to ${number(r.high)}`, r.wins, r.ties, r.losses, r.users])));
  fill("controls", run.controls, table("Controls", ["Control", "under", "mean", "95 % interval", "states", "passed"],
    run.controls.map(c => [c.name, c.judge, number(c.mean), `${number(c.low)} to ${number(c.high)}`, c.n, c.passed ? "yes" : "no"])));
  $("config").hidden = !run.config;
  $("config").querySelector("pre").textContent = run.config ?? "";
  if (!pages.length && !stages.length && !run.rates.length) $("status").textContent = "This run has measured nothing yet.";
}

keyField(start);
start();
