// The talk: messages, replies as they are written, and what is said of them.

import {$, Refused, ask, el, events, kept, keyField, read} from "./web.js";
import {thumb} from "./charts.js";
import {lookAt, offered, reset} from "./sees.js";

const PLAIN = "vanilla", NAMES = {pamdp: "pamdp", clone: "Clone", vanilla: "Plain model"};
let turns = [];  // each {said, replies: [{model, text, id, ended}]}
let running = null, offers = {};

const named = model => NAMES[model] ?? model;
const say = text => { $("status").textContent = text; };

// What the model is shown: the talk goes on from the first reply of each turn.
export const history = (upTo = turns.length) => turns.slice(0, upTo).flatMap(({said, replies}, i) => [
  {role: "user", content: said},
  ...(i < upTo - 1 && replies[0].text.trim() ? [{role: "assistant", content: replies[0].text}] : []),
]);

async function write(reply, messages, signal) {
  const answer = await ask("/v1/chat/completions", {
    method: "POST", signal, body: {model: reply.model, messages, stream: true, user: $("user").value},
  });
  for await (const data of events(answer)) {
    if (data === "[DONE]") { reply.ended = true; return; }
    const piece = JSON.parse(data);
    if (piece.error) throw new Refused(0, piece.error.message);
    reply.id = piece.id;
    reply.text += piece.choices[0]?.delta.content ?? "";
    reply.shows.textContent = reply.text;
    follow();
  }
  throw new Refused(0, "The reply broke off.");
}

// Keeps the end of the talk in sight, unless the reader has gone up.
let near = true;
$("log").addEventListener("scroll", () => { near = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 80; });
const follow = () => { if (near) $("log").scrollTop = $("log").scrollHeight; };

async function send(text) {
  const models = [$("model").value, ...($("beside").checked && $("model").value !== PLAIN ? [PLAIN] : [])];
  const turn = {said: text, replies: models.map(model => ({model, text: "", id: null, ended: false}))};
  turns.push(turn);
  $("welcome").hidden = true;
  const answers = el("div", {class: "replies"}, ...turn.replies.map(shown));
  $("log").append(el("article", {class: "said", "aria-label": "You"}, el("p", {}, text)), answers);
  near = true;
  follow();
  running = new AbortController();
  busy(true);
  const {signal} = running, messages = history();
  await Promise.all(turn.replies.map(async reply => {
    try { await write(reply, messages, signal); } catch (error) { failed(reply, error); }
    reply.shows.classList.remove("writing");
    if (reply.ended) reply.box.append(judged(reply));
    follow();
  }));
  running = null;
  if (turn.replies.length === 2 && turn.replies.every(reply => reply.ended) && offers.feedback) answers.append(preferred(turn.replies));
  busy(false);
  follow();
  say(turn.replies[0].ended ? "The reply is there." : "No whole reply.");
  if (turns.includes(turn)) await lookAt({model: models[0], messages, turns: turns.length, replied: turn.replies[0].ended});
}

function shown(reply) {
  reply.shows = el("p", {class: "text writing"});
  reply.box = el("article", {class: `reply ${reply.model === PLAIN ? "plainly" : ""}`, "aria-label": `Reply, ${named(reply.model)}`},
    el("h3", {}, named(reply.model)), reply.shows);
  return reply.box;
}

function failed(reply, error) {
  const stopped = error.name === "AbortError";
  if (stopped && !reply.text) reply.shows.textContent = "…";
  reply.box.append(el("p", {class: stopped ? "small" : "error", role: stopped ? "note" : "alert"},
    stopped ? "Stopped. The server keeps nothing of it." : error.message));
}

function busy(is) {
  $("log").setAttribute("aria-busy", String(is));
  $("send").hidden = is;
  $("stop").hidden = !is;
  if (is) say("The reply is being written.");
  else if (document.activeElement === document.body) $("say").focus();
}

// Thumbs and a correction of one reply.
function judged(reply) {
  if (!offers.feedback) return el("span", {});
  const told = el("span", {class: "small", role: "status"});
  const thumbs = [1, -1].map(value => el("button", {
    type: "button", class: "quiet", "aria-pressed": "false", "aria-label": value > 0 ? "Good reply" : "Poor reply", title: value > 0 ? "Good reply" : "Poor reply",
    onclick: () => feedback({reply: reply.id, thumb: value}, told, () => thumbs.forEach((b, i) => b.setAttribute("aria-pressed", String((i ? -1 : 1) === value)))),
  }, thumb(value < 0)));
  const text = el("textarea", {rows: 3, value: reply.text, "aria-label": "What it should have said"});
  const form = el("form", {class: "correction", hidden: true, onsubmit: event => {
    event.preventDefault();
    feedback({reply: reply.id, correction: text.value}, told, () => { form.hidden = true; open.setAttribute("aria-expanded", "false"); open.focus(); });
  }}, text, el("p", {class: "small"}, "It teaches later policies; what was said stays as it is."), el("button", {}, "Send the correction"));
  const open = el("button", {type: "button", class: "quiet", "aria-expanded": "false", onclick: () => {
    form.hidden = !form.hidden;
    open.setAttribute("aria-expanded", String(!form.hidden));
    if (!form.hidden) text.focus();
  }}, "Correct it");
  return el("div", {class: "judged"}, el("div", {class: "row", role: "group", "aria-label": "What you think of this reply"}, ...thumbs, open, told), form);
}

function preferred([one, other]) {
  const told = el("span", {class: "small", role: "status"}), pairs = [[one, other], [other, one]];
  const buttons = pairs.map(([better, worse], i) => el("button", {
    type: "button", class: "quiet", "aria-pressed": "false",
    onclick: () => feedback({preferred: better.id, over: worse.id}, told, () => buttons.forEach((b, j) => b.setAttribute("aria-pressed", String(i === j)))),
  }, named(better.model)));
  return el("div", {class: "row preferred", role: "group", "aria-label": "Which one is better?"}, el("span", {}, "Better:"), ...buttons, told,
    el("span", {class: "small"}, `The talk goes on from ${named(one.model)}.`));
}

async function feedback(body, told, done) {
  try {
    await ask("/v1/feedback", {method: "POST", body: {...body, user: $("user").value}});
    told.textContent = "Noted, thank you.";
    done();
  } catch (error) { told.textContent = error.message; }
}

function fresh() {
  running?.abort();
  turns = [];
  $("log").replaceChildren($("welcome"));
  $("welcome").hidden = false;
  reset();
  $("say").focus();
}

async function start() {
  try {
    offers = await read("/v1/page");
    $("key-label").hidden = !offers.keys;
    $("run-link").hidden = !offers.run;
    const models = (await read("/v1/models")).data.map(model => model.id);
    $("model").replaceChildren(...models.map(model => el("option", {value: model}, named(model))));
    $("beside-label").hidden = !models.includes(PLAIN);
    await offered(offers);
  } catch (error) {
    say(error.message);
    $("model").replaceChildren();
    if (error.status === 401) $("key").focus();
    $("none-note").textContent = error.message;
    $("none-panel").hidden = false;
  }
}

$("form").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("say").value.trim();
  if (!text || running || !$("model").value) return;
  $("say").value = "";
  grow();
  send(text);
});
$("say").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
const grow = () => { $("say").style.height = "auto"; $("say").style.height = `${$("say").scrollHeight + 2}px`; };
$("say").addEventListener("input", grow);
$("stop").addEventListener("click", () => { running?.abort(); $("say").focus(); });
document.addEventListener("keydown", event => { if (event.key === "Escape" && !$("sure").open) running?.abort(); });
$("fresh").addEventListener("click", fresh);
document.addEventListener("erased", fresh);
$("user").value = kept.get("user") || "me";
$("user").addEventListener("change", () => {
  $("user").value = $("user").value.trim() || "me";
  kept.set("user", $("user").value);
  fresh();
  offered(offers);
});
keyField(start);
start();
