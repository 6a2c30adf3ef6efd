// Asks the server, and makes elements. All texts become text nodes: nothing here reads HTML.

export const $ = id => document.getElementById(id);

export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

export const kept = {
  get: name => { try { return sessionStorage.getItem("pamdp-" + name) ?? ""; } catch { return ""; } },
  set: (name, value) => { try { sessionStorage.setItem("pamdp-" + name, value); } catch { /* it lasts as long as the page */ } },
};

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function ask(path, {method = "GET", body, signal} = {}) {
  const headers = {};
  if ($("key").value) headers.Authorization = "Bearer " + $("key").value;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body)});
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refused(0, "The server does not answer.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) { $("key-label").hidden = false; $("key").setAttribute("aria-invalid", "true"); }
  throw new Refused(answer.status, said.error?.message ?? `The server answers with status ${answer.status}.`);
}

export const read = async (path, asked) => (await ask(path, asked)).json();

// The data of server-sent events, one by one.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter(line => line.startsWith("data:")).map(line => line.slice(5).trimStart());
      if (data.length) yield data.join("\n");
    }
  }
}

// Keeps the key for as long as the tab is open, and no longer.
export function keyField(changed) {
  $("key").value = kept.get("key");
  $("key").addEventListener("change", () => {
    $("key").removeAttribute("aria-invalid");
    kept.set("key", $("key").value);
    changed();
  });
}
