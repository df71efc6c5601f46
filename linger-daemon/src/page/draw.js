// Elements, numbers and charts. All text is put in as text: names come from anyone's processes.

const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Control and format characters, as in text.rs.
const HIDDEN = /[\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e0fff}]/gu;

// A name as one line that neither hides nor reorders anything.
function named(text) {
  const shown = text.replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(HIDDEN, "\ufffd");
  return el("bdi", {}, shown || "–");
}

const grouped = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

const scaled = (value, step, units) => {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  return `${short.format(value)} ${units[unit]}`;
};

const inCount = (value) => grouped.format(value);
const inRate = (value) => short.format(value);
const inBytes = (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]);
function inSeconds(value) {
  if (value === 0) return "0 s";
  if (value >= 60) return value < 3600 ? `${short.format(value / 60)} min` : `${short.format(value / 3600)} h`;
  return value >= 1 ? `${short.format(value)} s` : scaled(value * 1e6, 1000, ["µs", "ms", "s"]);
}

// A number for people that says what it is exactly; none if it is not known yet.
const number = (value, form) =>
  value === null ? "–" : el("data", { value, title: value }, form(value));

const numberCell = (value, form) => el("td", { class: "number" }, number(value, form));

const head = (...children) => el("th", { scope: "row" }, ...children);

// A line of what a value was; its numbers stand beside it.
function course(values) {
  const top = Math.max(...values, Number.MIN_VALUE);
  const steps = Math.max(values.length, 10) - 1;
  const points = values.map((value, index) =>
    `${(100 * (index + steps + 1 - values.length)) / steps},${19 - (18 * value) / top}`);
  const line = svg("polyline", { points: points.join(" ") });
  const attributes = { class: "course", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", attributes, ...(values.length > 1 ? [line] : []));
}

// A bar for a part of the whole; its number stands beside it.
function bar(part, isFramed) {
  const whole = { width: "100%", height: "100%", class: "track" };
  const width = `${100 * Math.min(part, 1)}%`;
  return svg("svg", { class: "bar", "aria-hidden": "true" },
    svg("rect", { width, height: "100%" }), ...(isFramed ? [svg("rect", whole)] : []));
}

// A bar of several parts, [name, value] each, the name being its class too; with its numbers in words.
function parts(all, form) {
  const sum = all.reduce((total, [, value]) => total + value, 0);
  let from = 0;
  const rects = all.map(([name, value]) => {
    const width = sum > 0 ? (100 * value) / sum : 0;
    const rect = svg("rect", { class: name, x: `${from}%`, width: `${width}%`, height: "100%" });
    from += width;
    return rect;
  });
  const label = all.map(([name, value]) => `${form(value)} ${name}`).join(", ");
  const frame = svg("rect", { class: "frame", width: "100%", height: "100%" });
  const legend = all.map(([name, value]) => el("li", {},
    svg("svg", { "aria-hidden": "true" }, svg("rect", { class: name, width: "100%", height: "100%" })),
    number(value, form), ` ${name}`));
  return [svg("svg", { role: "img", "aria-label": label }, ...rects, frame), el("ul", {}, ...legend)];
}
