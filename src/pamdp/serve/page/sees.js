// What stands beside the talk: the profile, values, the action's path, and replies under other actions.

import {$, Refused, ask, el, read} from "./web.js";
import {lines, path} from "./charts.js";

let offers = {}, seen = null, values = [], personal = [], looks = 0;

const user = () => `/v1/users/${encodeURIComponent($("user").value)}`;
const panels = ["profile-panel", "values-panel", "path-panel", "other-panel"];

function settle() {
  $("none-panel").hidden = panels.some(id => !$(id).hidden);
}

export async function offered(given) {
  offers = given;
  $("profile-panel").hidden = !offers.profiles;
  $("infer").hidden = !offers.infers;
  settle();
  await profile();
}

export function reset() {
  looks += 1;
  [seen, values, personal] = [null, [], []];
  for (const id of panels.slice(1)) $(id).hidden = true;
  $("otherwise").replaceChildren();
  settle();
}

// After a reply; what an earlier look finds late is dropped.
export async function lookAt(asked) {
  const look = looks += 1;
  seen = asked;
  $("otherwise").replaceChildren();
  await Promise.all([inspect(look), expected(look), profile(look)]);
  settle();
  if (offers.profiles) setTimeout(() => { if (look === looks && !editing()) profile(look); }, 5000);
}

async function inspect(look) {
  const {model, messages} = seen;
  let found;
  try {
    found = await read("/v1/inspect", {method: "POST", body: {model, messages}});
  } catch (error) {
    if (look !== looks) return;
    $("path-panel").hidden = $("other-panel").hidden = true;
    values = [];
    draw();
    $("none-note").textContent = error.status === 403 ? "What the policy sees is for admins' keys." : error.message;
    return;
  }
  if (look !== looks) return;
  values = found.turns.map(turn => turn.v_h);
  draw();
  $("path-panel").hidden = $("other-panel").hidden = false;
  $("path").replaceChildren(path(found.turns.map(turn => turn.at)));
  $("path-note").textContent = found.turns.length < 2 ? "One turn, one place: the path begins with the second."
    : `Mean actions of the turns (${found.turns[0].mean.length} numbers each) in the two directions in which they differ most: ${found.shares.map(share => Math.round(100 * share)).join(" and ")} % of the variance.`;
  const others = found.others.map(other => el("option", {value: other.index}, `of ${other.user.split(/[:/]/).slice(1).join("/") || other.user}, after ${other.turns} ${other.turns === 1 ? "turn" : "turns"}`));
  $("action").replaceChildren(el("option", {value: "mean"}, "the mean action"), el("option", {value: "zero"}, "no action (zero)"),
    ...(others.length ? [el("optgroup", {label: "another conversation's action"}, ...others)] : []));
}

// V(h) and V(h, ω) as the server's store tells them, of the last turn.
async function expected(look) {
  if (!offers.values || !seen.replied) return;
  const {turns} = seen;
  try {
    const found = await read(`${user()}/values`);
    if (look !== looks) return;
    personal[turns - 1] = found;
  } catch (error) { if (!(error instanceof Refused)) throw error; }
  draw();
}

const points = list => [...list].map((y, i) => [i + 1, y]).filter(([, y]) => typeof y === "number");

function draw() {
  const series = [
    {name: "V(h)", points: points(values.length ? values : [...personal].map(told => told?.v_h)), style: "first"},
    {name: "V(h, ω)", points: points([...personal].map(told => told?.v_hw)), style: "second"},
  ].filter(line => line.points.length);
  $("values-panel").hidden = !series.length;
  if (!series.length) return;
  const key = el("p", {class: "key"}, ...series.map(line => el("span", {class: line.style}, `${line.name} ${line.points.at(-1)[1].toFixed(2).replace("-", "−")}`)));
  $("values").replaceChildren(key, lines(series, {label: "Expected reward by turn", whole: true}));
}

$("other").addEventListener("submit", async event => {
  event.preventDefault();
  const {model, messages} = seen, chosen = $("action").selectedOptions[0], action = chosen.value;
  const row = el("li", {class: "busy"}, el("b", {}, chosen.textContent), el("p", {}, "…"));
  $("otherwise").prepend(row);
  try {
    const found = await read("/v1/inspect/replies", {method: "POST", body: {model, messages, actions: [/^\d+$/.test(action) ? Number(action) : action]}});
    row.lastChild.textContent = found.data[0].text || "(no words)";
  } catch (error) {
    row.lastChild.textContent = error.message;
  }
  row.className = "";
});

// The profile.

const editing = () => $("statements").querySelector("form") || $("profile-panel").contains(document.activeElement);

async function profile(look = looks, refresh = false) {
  if (!offers.profiles) return;
  try {
    const found = await read(`${user()}/profile${refresh ? "?refresh" : ""}`);
    if (look === looks) show(found);
  } catch (error) {
    if (look !== looks) return;
    $("statements").replaceChildren();
    $("profile-note").textContent = error.status === 404 ? "Nothing is remembered of you yet." : error.message;
  }
}

function show(found) {
  const from = found.inferred_from ? ` So far from ${found.inferred_from} of your messages.` : "";
  $("profile-note").textContent = found.note[0].toUpperCase() + found.note.slice(1) + "." + (found.state === "none" ? "" : from);
  $("profile-panel").dataset.state = found.state;
  $("statements").replaceChildren(...found.statements.map(statement));
}

function statement(entry) {
  const count = entry.cited.length, sure = `confidence ${entry.confidence.toFixed(2)}`;
  const edit = el("button", {type: "button", class: "quiet", "aria-label": `Edit: ${entry.text}`, onclick: () => row.replaceChildren(editor(entry, row))}, "Edit");
  const drop = el("button", {type: "button", class: "quiet", "aria-label": `Take out: ${entry.text}`, onclick: () => change({id: entry.id, text: null})}, "Take out");
  const row = el("li", {},
    el("div", {class: "row"}, el("span", {class: "text"}, entry.text), edit, drop),
    entry.edited_by ? el("p", {class: "small"}, "written by hand")
      : el("p", {class: "small sure"}, el("meter", {min: 0, max: 1, value: entry.confidence, "aria-label": sure}), ` ${sure}, a count and no probability`),
    count ? el("details", {}, el("summary", {}, `rests on ${count} ${count === 1 ? "message" : "messages"}`), ...entry.cited.map(text => el("blockquote", {}, text))) : null);
  return row;
}

function editor(entry, row) {
  const text = el("input", {value: entry.text, maxLength: 2000, "aria-label": "The statement"});
  const form = el("form", {class: "row", onsubmit: event => { event.preventDefault(); change({id: entry.id, text: text.value}); }},
    text, el("button", {}, "Save"), el("button", {type: "button", onclick: () => row.replaceWith(statement(entry))}, "Cancel"));
  setTimeout(() => text.focus());
  return form;
}

async function change(statement) {
  try {
    show(await read(`${user()}/profile`, {method: "PATCH", body: {statements: [statement]}}));
    if (document.activeElement === document.body) $("profile-head").focus();  // the button that was pressed is gone
    if (seen) await expected(looks);
  } catch (error) {
    $("profile-note").textContent = error.status === 404 ? "Say something first: nothing is remembered of you yet." : error.message;
  }
}

$("add").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("added").value.trim();
  if (!text) return;
  $("added").value = "";
  change({text});
});
$("infer").addEventListener("click", async () => {
  $("infer").disabled = true;
  $("profile-note").textContent = "It is being inferred …";
  await profile(looks, true);
  $("infer").disabled = false;
  $("infer").focus();
});
$("erase").addEventListener("click", () => { $("sure").returnValue = "no"; $("sure").showModal(); });
$("sure").addEventListener("close", async () => {
  if ($("sure").returnValue !== "yes") return;
  let note = "Everything is erased.";
  try {
    const {learned_from_them: learned} = await (await ask(user(), {method: "DELETE"})).json();
    if (learned.length) note += ` Policies that learned from you: ${learned.map(policy => policy.run || policy.version).join(", ")}. They can be trained again without you.`;
  } catch (error) { note = error.status === 404 ? "There was nothing to erase." : error.message; }
  document.dispatchEvent(new Event("erased"));
  $("statements").replaceChildren();
  $("profile-note").textContent = note;
});
