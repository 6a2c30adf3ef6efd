// Small drawings as inline SVG. Colours are classes of page.css.

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, given = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const short = x => (Math.abs(x) >= 1000 || (x && Math.abs(x) < 0.01) ? x.toExponential(1) : String(Number(x.toFixed(2)))).replace("-", "−");

// A scale from the values to LOW..HIGH, with a little air.
function scale(values, low, high, least = 1e-6) {
  let [a, b] = [Math.min(...values), Math.max(...values)];
  const air = Math.max(b - a, least) * 0.08;
  [a, b] = b - a < least ? [a - least / 2, b + least / 2] : [a - air, b + air];
  return Object.assign(x => low + (x - a) / (b - a) * (high - low), {from: a, to: b});
}

// Lines over turns or steps: [{name, points: [[x, y], ...], style}].
export function lines(series, {label, width = 340, height = 150, whole = false} = {}) {
  const drawn = series.filter(line => line.points.length), points = drawn.flatMap(line => line.points);
  const left = 40, right = width - 12, bottom = height - 24, xs = points.map(p => p[0]);
  const x = scale(xs, left + 6, right, 1), y = scale(points.map(p => p[1]), bottom, 10, whole ? 0.1 : 1e-9);
  const told = drawn.map(line => `${line.name}: ${line.points.slice(-12).map(p => short(p[1])).join(", ")}`).join("; ");
  const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": `${label}. ${told}`});
  for (const share of [0, 0.5, 1]) {
    const value = y.from + (y.to - y.from) * (0.08 + 0.84 * share), at = y(value);
    root.append(svg("line", {x1: left, x2: right, y1: at, y2: at, class: "grid"}));
    root.append(svg("text", {x: left - 6, y: at + 4, "text-anchor": "end"}, short(value)));
  }
  const ends = whole && new Set(xs).size < 9 ? [...new Set(xs)] : [Math.min(...xs), Math.max(...xs)];
  for (const end of new Set(ends)) root.append(svg("text", {x: x(end), y: height - 6, "text-anchor": whole ? "middle" : end === Math.min(...xs) ? "start" : "end"}, String(end)));
  for (const {points, style} of drawn) {
    root.append(svg("polyline", {points: points.map(p => `${x(p[0])},${y(p[1])}`).join(" "), class: `line ${style}`}));
    if (whole) for (const p of points) root.append(svg("circle", {cx: x(p[0]), cy: y(p[1]), r: 3.5, class: `dot ${style}`}));
  }
  return root;
}

// Where actions lie in the plane, from the first to the last; one scale for both directions.
export function path(places, {width = 340, height = 190} = {}) {
  const reach = Math.max(1e-6, ...places.flat().map(Math.abs)) * 1.25, half = height / 2 - 8;
  const at = p => [width / 2 + p[0] / reach * (width / 2 - 14), height / 2 - p[1] / reach * half];
  const label = `The mean action of ${places.length} turns in two directions: ` + places.map((p, i) => `turn ${i + 1} at ${short(p[0])}, ${short(p[1])}`).join("; ");
  const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label});
  root.append(
    svg("line", {x1: 8, x2: width - 8, y1: height / 2, y2: height / 2, class: "grid"}),
    svg("line", {x1: width / 2, x2: width / 2, y1: 8, y2: height - 8, class: "grid"}),
    svg("polyline", {points: places.map(p => at(p).join(",")).join(" "), class: "line first"}),
  );
  places.forEach((p, i) => {
    const [cx, cy] = at(p), last = i === places.length - 1;
    root.append(svg("circle", {cx, cy, r: last ? 9 : 8, class: last ? "dot first" : "dot past"}));
    root.append(svg("text", {x: cx, y: cy + 4, "text-anchor": "middle", class: last ? "on" : "number"}, String(i + 1)));
  });
  return root;
}

export function thumb(down) {
  return svg("svg", {viewBox: "0 0 24 24", width: 17, height: 17, class: down ? "icon down" : "icon", "aria-hidden": "true"},
    svg("path", {d: "M7 11v9H3v-9h4zm3 9h7.5a2 2 0 0 0 2-1.6l1.3-6.5a1.6 1.6 0 0 0-1.6-1.9H14l.8-4.2A2 2 0 0 0 12.9 3.500L9 10v10z"}));
}
