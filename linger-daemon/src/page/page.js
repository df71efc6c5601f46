// Asks for a reading every few seconds while someone looks, and shows it.

// Milliseconds between readings: at least so many, and so much longer the longer a reading takes.
const INTERVAL = 3000;
const PATIENCE = 15000;
// Rates that a course shows.
const KEPT = 60;
const GROUPS = 20;

const courses = new Map();
let last = null;
let sorting = { column: "aborted", isDown: true };
let timer = null;
let isAsking = false;

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
const sumOf = (things, part) => Object.values(things).reduce((total, thing) => total + part(thing), 0);
const queued = (queues) => sumOf(queues, (bytes) => bytes.unsent + bytes.unacked);
const keyOf = (live, group) => JSON.stringify(live.dimensions.map((name) => group.labels[name]));

// Per second since the last reading; null if it is the first, or of another run of the daemon.
function per(live, now, before) {
  const isNext = last && last.started === live.started && live.at > last.at;
  return isNext && before !== undefined && now >= before ? (now - before) / (live.at - last.at) : null;
}

// The rate of a total, remembered under its name, with the course it took.
function rated(live, name, total) {
  const rate = per(live, total(live), last && total(last));
  const course = courses.get(name) ?? [];
  if (rate !== null) course.push(rate);
  courses.set(name, course.slice(-KEPT));
  return { rate, values: courses.get(name) };
}

const TILES = [
  ["closes", "Closes", (live) => sum(live.closes), inRate, inCount],
  ["aborts", "Aborts", (live) => aborts(live.closes), inRate, inCount],
  ["discarded", "Bytes discarded by closes", (live) => queued(live.discarded), inBytes, inBytes],
  ["after", "Bytes lost after close", (live) => queued(live.orphans.discarded), inBytes, inBytes],
  ["unread", "Bytes left unread", (live) => live.unread, inBytes, inBytes],
  ["blocked", "Threads inside close, on average", (live) => sumOf(live.blocked.waited, (times) => times.sum), inRate, inSeconds],
];

const aborts = (closes) =>
  Object.entries(closes).reduce((total, [name, count]) => total + (isAbort(name) ? count : 0), 0);

function showNow(live) {
  const tiles = TILES.map(([name, title, total, inEach, inAll]) => {
    const { rate, values } = rated(live, name, total);
    const unit = name === "blocked" || rate === null ? "" : "/s";
    return el("li", { id: `now-${name}` }, title, el("b", {}, number(rate, inEach), unit), course(values),
      el("small", {}, number(total(live), inAll), " in all"));
  });
  const now = el("li", { id: "now-orphans" }, "Orphans under way",
    el("b", {}, number(live.orphans.now, inCount)),
    el("small", {}, "closed, and still delivering"));
  byId("now").replaceChildren(...tiles, now);
}

function showOutcomes(live) {
  const rows = inOrder(OUTCOMES, live.closes).map((name) => {
    const { rate, values } = rated(live, `outcome ${name}`, (one) => one.closes[name] ?? 0);
    return el("tr", { "data-outcome": name },
      head(isAbort(name) ? el("b", { class: "bad-text" }, name) : el("b", {}, name),
        el("small", {}, OUTCOMES[name] ?? "")),
      numberCell(rate, inRate), el("td", {}, course(values)), numberCell(live.closes[name], inCount));
  });
  byId("outcomes").replaceChildren(...rows);
}

// What is told of a group: the column's name, its head, and how it is shown.
const COLUMNS = [
  ["closed", "closes", inCount, (group) => sum(group.closes)],
  ["aborted", "aborts", inCount, (group) => group.aborted],
  ["discarded", "discarded", inBytes, (group) => group.discarded],
  ["lost_after_close", "lost after close", inBytes, (group) => group.lost_after_close],
  ["unread", "unread", inBytes, (group) => group.unread],
  ["blocked_seconds", "blocked", inSeconds, (group) => group.blocked_seconds],
];

function sortBy(column) {
  const isDown = sorting.column === column ? !sorting.isDown : !last.dimensions.includes(column);
  sorting = { column, isDown };
  showGroups(last);
}

// The heads stay, so that the focus does.
function groupHeads(live) {
  const columns = [
    ...live.dimensions.map((name) => [name, name, ""]),
    ...COLUMNS.map(([name, title]) => [name, title, "number"]),
  ];
  const row = byId("groups").tHead.rows[0];
  const wanted = columns.map(([name]) => name).join();
  if (row.dataset.columns !== wanted) {
    row.dataset.columns = wanted;
    row.replaceChildren(...columns.map(([name, title, kind]) => {
      const button = el("button", { type: "button" }, title, el("span", { "aria-hidden": "true" }));
      button.addEventListener("click", () => sortBy(name));
      return el("th", { scope: "col", class: kind, "data-column": name }, button);
    }));
  }
  for (const cell of row.cells) {
    const isSorted = cell.dataset.column === sorting.column;
    const direction = sorting.isDown ? "descending" : "ascending";
    cell.setAttribute("aria-sort", isSorted ? direction : "none");
    cell.querySelector("span").textContent = isSorted ? (sorting.isDown ? " ▼" : " ▲") : "";
  }
}

// Whether it has the counts of groups whose cgroups are gone: they grow when they are moved there, not when they happen.
const isRetired = (live, group) =>
  live.dimensions.length > 0 && live.dimensions.every((name) => group.labels[name] === "retired");

// The values of each group, in all or per second since the reading before.
function groupValues(live) {
  if (!byId("per-second").checked) {
    return live.groups.map((group) => ({ group, values: COLUMNS.map(([, , , of]) => of(group)) }));
  }
  return live.groups.map((group) => {
    const before = isRetired(live, group) ? undefined : live.before?.get(keyOf(live, group));
    const values = COLUMNS.map(([, , , of]) =>
      (before ? Math.max(of(group) - of(before), 0) / (live.at - live.beforeAt) : null));
    return { group, values };
  });
}

function showGroups(live) {
  groupHeads(live);
  const index = COLUMNS.findIndex(([name]) => name === sorting.column);
  const order = index < 0
    ? (one, two) => one.group.labels[sorting.column]?.localeCompare(two.group.labels[sorting.column])
    : (one, two) => (one.values[index] ?? -1) - (two.values[index] ?? -1);
  const all = groupValues(live).sort((one, two) => (sorting.isDown ? -order(one, two) : order(one, two)));
  const isPerSecond = byId("per-second").checked;
  const button = byId("all-groups");
  const isWhole = button.getAttribute("aria-pressed") === "true";
  const rows = all.slice(0, isWhole ? all.length : GROUPS).map(({ group, values }) =>
    el("tr", {},
      ...live.dimensions.map((name, at) => {
        const text = named(group.labels[name] ?? "");
        return at === 0 ? head(text) : el("td", {}, text);
      }),
      ...values.map((value, at) => {
        const form = isPerSecond && COLUMNS[at][2] === inCount ? inRate : COLUMNS[at][2];
        return numberCell(value, form);
      })));
  byId("groups").tBodies[0].replaceChildren(...rows);
  button.hidden = all.length <= GROUPS;
  button.textContent = isWhole ? `Show the first ${GROUPS} only` : `Show all ${all.length}`;
  byId("groups-rest").textContent = live.groups_omitted > 0
    ? `${inCount(live.groups_omitted)} more groups are only in the sums of this page; /metrics has them all.` : "";
}

function showBlocked(live) {
  const { bounds, waited } = live.blocked;
  const { value } = byId("blocked-waited");
  const chosen = Object.keys(waited).filter((key) => !value || key === value).map((key) => waited[key]);
  const counts = [...bounds, Infinity].map((_, bucket) =>
    chosen.reduce((total, times) => total + times.counts[bucket], 0));
  const most = Math.max(...counts);
  const rows = counts.map((count, bucket) => {
    const words = bucket < bounds.length
      ? `up to ${inSeconds(bounds[bucket])}` : `over ${inSeconds(bounds.at(-1))}`;
    const part = count > 0 ? Math.log1p(count) / Math.log1p(most) : 0;
    return el("tr", {}, el("th", { scope: "row", class: "number" }, words), el("td", {}, bar(part, false)),
      numberCell(count, inCount));
  });
  byId("blocked").replaceChildren(...rows);
  const total = counts.reduce((all, count) => all + count, 0);
  const seconds = chosen.reduce((all, times) => all + times.sum, 0);
  byId("blocked-sum").replaceChildren(
    ...(total > 0 ? [number(seconds, inSeconds), " in all, ", number(seconds / total, inSeconds), " on average."] : []));
}

function showOrphans(live) {
  const { orphaned, delivered, discarded, ends } = live.orphans;
  const lost = queued(discarded);
  const outstanding = Math.max(orphaned - delivered - lost, 0);
  byId("orphaned").replaceChildren(
    ...parts([["delivered", delivered], ["discarded", lost], ["outstanding", outstanding]], inBytes));
  const rows = inOrder(FATES, { ...ends, ...discarded }).map((name) => {
    const bytes = discarded[name] ?? { unsent: 0, unacked: 0 };
    return el("tr", { "data-fate": name },
      head(el("b", {}, name), el("small", {}, FATES[name] ?? "")),
      numberCell(ends[name] ?? 0, inCount), numberCell(bytes.unsent, inBytes), numberCell(bytes.unacked, inBytes));
  });
  byId("fates").replaceChildren(...rows);
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString();

function showRecent(live) {
  byId("recent-box").hidden = live.recent.length === 0;
  byId("recent-none").hidden = live.recent.length > 0;
  const rows = live.recent.map((close) => el("tr", {},
    head(el("time", { datetime: new Date(close.at * 1000).toISOString() }, clock(close.at))),
    el("td", {}, named(close.comm), ` (${close.pid})`), el("td", {}, named(close.unit)),
    el("td", isAbort(close.outcome) ? { class: "bad-text" } : {}, close.outcome),
    numberCell(close.blocked_seconds, inSeconds),
    ...[close.unsent, close.unacked, close.unread].map((value) => numberCell(value, inBytes)),
    el("td", {}, close.local), el("td", {}, close.remote)));
  byId("recent").replaceChildren(...rows);
}

// What keeps the counts from being whole, in sentences.
function troubles({ plan, health: { lost, maps, hooks } }) {
  const missing = hooks.filter((hook) => !hook.attached).map((hook) => `The program ${hook.program} is not attached.`);
  const full = maps.filter((map) => map.entries >= 0.9 * map.capacity)
    .map((map) => `The map ${map.map} is ${short.format((100 * map.entries) / map.capacity)} % full.`);
  // As the alert LingerdLosesCounts: some closes that wait have no time under the plan tracepoint.
  const isExpected = (what) => what === "event" || (what === "return" && plan === "tracepoint");
  const some = Object.entries(lost).filter(([what, count]) => count > 0 && !isExpected(what))
    .map(([what, count]) => `Not recorded: ${inCount(count)} × ${LOST[what] ?? what}.`);
  return [...missing, ...full, ...some];
}

function showHealth(live) {
  const { health } = live;
  const found = troubles(live);
  byId("health").className = `verdict ${found.length ? "bad" : "good"}`;
  byId("health").textContent = found.join(" ") || "Every program is attached, and every close is counted.";
  const facts = [
    ["Plan", live.plan], ["Kernel", live.kernel], ["Version", `${live.version} (${live.revision})`],
    ["Running since", new Date(live.started * 1000).toLocaleString()],
    ["Memory", number(health.resident_bytes, inBytes)], ["Reading took", number(health.reading_seconds, inSeconds)],
    ["Payload of lost orphans", number(health.lost_orphan_bytes, inBytes)],
  ];
  byId("itself").replaceChildren(...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  byId("lost").replaceChildren(...inOrder(LOST, health.lost).map((what) => el("tr", { "data-lost": what },
    head(el("b", health.lost[what] > 0 ? { class: "bad-text" } : {}, what), el("small", {}, LOST[what] ?? "")),
    numberCell(health.lost[what], inCount))));
  byId("maps").replaceChildren(...health.maps.map((map) => el("tr", { "data-map": map.map },
    head(map.map), el("td", {}, bar(map.entries / map.capacity, true)),
    numberCell(map.entries, inCount), numberCell(map.capacity, inCount))));
  byId("hooks").replaceChildren(...health.hooks.map((hook) => el("tr", {},
    head(hook.program), el("td", {}, hook.target), el("td", {}, hook.attached ? "attached" : "missing"))));
}

function show(live) {
  if (last && per(live, 0, 0) !== null) {
    live.before = new Map(last.groups.map((group) => [keyOf(last, group), group]));
    live.beforeAt = last.at;
  } else {
    courses.clear();
  }
  document.title = `${live.host} · lingerd`;
  byId("host").textContent = live.host && ` on ${live.host}`;
  byId("facts").textContent = `${live.version}, plan ${live.plan}, Linux ${live.kernel}`;
  for (const part of [showNow, showOutcomes, showGroups, showBlocked, showOrphans, showRecent, showHealth]) part(live);
  byId("main").hidden = false;
  byId("clock").textContent = `Read at ${clock(live.at)}.`;
  if (last) delete last.before;
  last = live;
  const { dataset } = document.documentElement;
  dataset.readings = Number(dataset.readings ?? 0) + 1;
}

// Says how it stands; read aloud only when it changes.
function tell(kind, words) {
  const state = byId("state");
  if (state.textContent !== words) state.textContent = words;
  state.className = kind;
}

async function ask() {
  const answer = await fetch("live.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) })
    .catch(() => { throw new Error("lingerd cannot be reached"); });
  if (answer.ok) return answer.json();
  if (answer.status === 401) throw new Error("lingerd requires the password again: reload this page");
  throw new Error(`lingerd responded: ${(await answer.text()).trim() || answer.status}`);
}

async function refresh() {
  clearTimeout(timer);
  if (isAsking || document.visibilityState !== "visible") return;
  isAsking = true;
  let wait = INTERVAL;
  try {
    const live = await ask();
    show(live);
    wait = Math.max(INTERVAL, 20000 * live.health.reading_seconds);
    tell("good", "Live: read every few seconds.");
  } catch (error) {
    const shown = last ? ` The figures shown are from ${clock(last.at)}.` : "";
    tell("bad", `Not live: ${error.message}.${shown} Retrying every few seconds.`);
  }
  isAsking = false;
  timer = setTimeout(refresh, wait);
}

byId("per-second").addEventListener("change", () => last && showGroups(last));
byId("blocked-waited").addEventListener("change", () => last && showBlocked(last));
byId("all-groups").addEventListener("click", ({ currentTarget: button }) => {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  showGroups(last);
});
document.addEventListener("visibilitychange", refresh);
refresh();
