"use strict";
// Draws what `skyward.view.timeline` has folded. Everything from outside becomes text, never markup.
const $ = id => document.getElementById(id);
const LIVE = document.body.dataset.live === "yes";
const STAGES = ["launching", "reaching", "booting", "joining", "ready", "ending"];
const SHOWN = 14, SLOT = 13, EDGE = 3, KEPT = 20000, LISTED = 1000;
let head = null, lanes = new Map(), output = new Map(), asked = null, rows = [], view = null, opened = new Set(), chosen = { row: 0, cell: -1 };
let colours = {}, drag = null, pending = false, whole = true;

const el = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
const fill = (node, children) => node.replaceChildren(...children);
const end = () => Math.max(head.now, head.ticks / 10);
const count = n => n.toLocaleString("en-US"), counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
function time(ticks, step, last = ticks) { // ticks as seconds, or as minutes if `last` is long; as exact as the step between two needs
  const s = ticks / head.ticks, places = step === undefined ? (Math.abs(s) < 10 ? 3 : 2) : Math.max(0, Math.min(4, -Math.floor(Math.log10(step / head.ticks))));
  if (Math.abs(last) < 120 * head.ticks) return s.toFixed(places) + " s";
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, digits = step === undefined ? 1 : places, rest = (s % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return (h ? h + ":" + String(m).padStart(2, "0") : m) + ":" + rest;
}
const long = ticks => { const s = ticks / head.ticks; return s < 0.1 ? (s * 1000).toFixed(1) + " ms" : s < 120 ? s.toFixed(2) + " s" : time(ticks); };
const bytes = n => !n ? "" : n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : n < 1e9 ? (n / 1e6).toFixed(1) + " MB" : (n / 1e9).toFixed(2) + " GB";
const short = s => s < 0.1 ? (s * 1000).toFixed(1) + " ms" : s < 10 ? s.toFixed(2) + " s" : s.toFixed(1) + " s";
const status = index => head.statuses[index] === "overdue" ? "timed out" : head.statuses[index];
const swatch = (name, text) => { const li = el("li"), i = el("i"); i.style.background = `var(--${name})`; li.append(i, text); return li; };

// ---------------------------------------------------------------- data

function take(data) {
  head = data;
  if (data.fresh) { lanes = new Map(); output = new Map(); }
  for (const [node, slot, status, flat] of data.cells) {
    const key = node + ":" + slot + ":" + status;
    let lane = lanes.get(key);
    if (!lane) lanes.set(key, lane = { node, slot, status, at: new Map(), cells: null });
    for (let i = 0, begin = 0, batch = 0; i < flat.length; i += 8) {
      begin += flat[i]; batch += flat[i + 5];
      lane.at.set(Math.floor(begin / head.grain), { begin, end: begin + flat[i + 1], ran: flat[i + 1] - flat[i + 2], calls: flat[i + 3], tasks: flat[i + 4], batch, function: flat[i + 6], first: flat[i + 7], node, slot, status });
    }
    lane.cells = [...lane.at.values()].sort((a, b) => a.begin - b.begin);
  }
  for (const [key, [first, lines]] of Object.entries(data.output)) {
    const had = output.get(key), known = had ? had.first + had.lines.length : 0;
    if (!had || first > known) output.set(key, { first, lines }); else had.lines.push(...lines.slice(known - first));
    const kept = output.get(key), over = kept.lines.length - KEPT;
    if (over > 0) { kept.lines.splice(0, over); kept.first += over; }
  }
  if (!view || whole) view = [0, end()];
  tell(); arrange(); paint(); if (asked) list(false);
}

function bySlot(node) {
  const slots = new Map();
  for (const lane of lanes.values()) if (lane.node === node) {
    if (!slots.has(lane.slot)) slots.set(lane.slot, []);
    slots.get(lane.slot).push(lane);
  }
  for (const each of slots.values()) each.sort((a, b) => a.status - b.status);
  return slots;
}

function arrange() { // the rows from top to bottom
  rows = []; let top = 0;
  const loose = head.incidents.filter(i => i[1] === "retried" || i[1] === "lost");
  if (loose.length) { rows.push({ kind: "calls", top, height: SHOWN, marks: loose, label: "retries" }); top += SHOWN + EDGE; }
  for (const node of head.nodes) {
    const slots = bySlot(node.node), open = opened.has(node.node);
    rows.push({ kind: "node", top, height: SHOWN + 8, node, slots, label: (open ? "▾ " : "▸ ") + "node " + node.node });
    top += SHOWN + 8 + (open ? 1 : EDGE);
    if (open) {
      const many = Math.max(node.slots, ...[...slots.keys()].map(s => s + 1), 0);
      for (let slot = 0; slot < many; slot++) { rows.push({ kind: "slot", top, height: SLOT, node, slot, lanes: slots.get(slot) || [], label: "slot " + slot }); top += SLOT + 1; }
      if (node.usage.length) for (const [what, label] of [[1, "CPU"], [2, "memory"]]) { rows.push({ kind: "usage", top, height: 18, node, what, label }); top += 19; }
      top += EDGE;
    }
  }
  const lanesBox = $("lanes");
  $("spacer").style.height = Math.max(top, 40) + "px";
  lanesBox.style.height = Math.max(top, 40) + 2 + "px";
}

// ---------------------------------------------------------------- words

function tell() {
  const run = head.run;
  $("name").textContent = "Skyward run " + (run ? run.run : "");
  document.title = "Skyward run " + (run ? run.run : "");
  const state = $("state"), stopped = !head.ended && !LIVE;
  state.textContent = head.error ? "failed" : head.ended ? "finished" : stopped ? "not finished when this page was made" : "running";
  state.className = "badge " + (head.error ? "bad" : head.ended ? "good" : "now");
  const began = head.origin === null ? "" : new Date(head.origin * 1000).toLocaleString() + " · ";
  $("about").textContent = run ? `${run.program || "interactive"} · ${began}${run.provider}, ${run.most > run.nodes ? run.nodes + " to " : ""}${counted(run.most, "node")} × ${run.concurrency ? counted(run.concurrency, "slot") : "a slot per CPU"} (${run.executor}) · Skyward ${run.version}, Python ${run.python}` : "No events were recorded for this run.";
  const bad = [head.error, head.leaked.length ? "Could not be terminated: " + head.leaked.join(", ") : ""].filter(Boolean);
  $("error").hidden = !bad.length; $("error").textContent = bad.join("\n");
  $("progress").hidden = head.ended;
  $("bar").hidden = head.total === null;
  $("bar").value = head.total ? head.done / head.total : 0;
  const running = head.nodes.reduce((sum, n) => sum + (n.running || 0), 0);
  $("done").textContent = head.total === null ? `${counted(head.done, "task")} done, ${count(head.arrived - head.done)} queued or running` : head.total ? `${count(head.done)} of ${counted(head.total, "task")} done` + (running && head.done < head.total ? `, ${counted(running, "call")} running` : "") : "no task so far";
  fill($("numbers"), head.numbers.map(([label, value]) => { const div = el("div"); div.append(el("dt", label), el("dd", value.replace(/^\d{4,}(?=$|\.| )/, d => count(+d)))); return div; }));
  $("lost").hidden = !head.lost.length;
  $("reported").textContent = head.reported === null ? "" : `as of ${time(head.reported)}`;
  fill($("shares"), head.lost.map(([name, share]) => { const div = el("div"); div.style.width = share * 100 + "%"; div.style.background = `var(--${name})`; div.title = `${name} ${(share * 100).toFixed(2)}%`; return div; }));
  fill($("legend"), head.lost.map(([name, share]) => swatch(name, `${name} ${(share * 100).toFixed(2)}%`)));
  $("hint").hidden = !head.hint; $("hint").textContent = "Hint: " + head.hint;
  $("notes").textContent = head.notes.join("\n");
  const seen = new Set([...lanes.values()].map(l => head.statuses[l.status]));
  fill($("key"), [...head.statuses.map((s, i) => [s, i]).filter(([s]) => seen.has(s)).map(([s, i]) => swatch(s, status(i))), ...["launching", "booting", "joining"].map(s => swatch(s, s)), swatch("ready", "ready, idle"), ...(head.incidents.some(i => i[1] === "retried") ? [swatch("retry", "retried")] : []), ...(head.incidents.some(i => i[1] === "lost") ? [swatch("died", "lost")] : []), ...(head.nodes.some(n => n.silences.length) ? [swatch("silent", "silent (hatched)")] : []), ...(head.nodes.some(n => n.notices.length) ? [swatch("notice", "reclaim notice")] : [])]);
  $("causes").hidden = !head.causes.length;
  fill($("causes").tBodies[0], head.causes.map(([cause, times]) => line([count(times), cause])));
  $("incidents").hidden = !head.incidents.length;
  fill($("incidents").tBodies[0], head.incidents.map(([at, kind, node, slot, call, text]) => line([time(at), kind, node !== null && call ? opener(node, slot, at, call) : call, node === null ? "" : node + (slot === null ? "" : " slot " + slot), text])));
  $("ran").hidden = !head.functions.length;
  fill($("functions").tBodies[0], head.functions.map(([name, calls, tasks, seconds, longest]) => line([name || "unknown", count(calls), count(tasks), short(seconds), short(seconds / calls), short(longest)])));
  $("fine").hidden = head.incidents.length > 0 || !!head.error; if (!head.nodes.length && !head.error) $("fine").textContent = "Nothing so far.";
  $("untold").textContent = Object.entries(head.untold).map(([kind, n]) => `and ${count(n)} more: ${kind}`).join("; ");
  fill($("nodes").tBodies[0], head.nodes.map(n => {
    const ready = n.stages.find(s => s[2] === "ready"), launched = n.stages[0], last = n.stages[n.stages.length - 1], lives = new Set(n.stages.map(s => s[1])).size;
    const now = n.givenUp ? "given up" : last ? last[2] + (n.step ? ": " + n.step : "") : "";
    return line([String(n.node), now, n.host, String(n.slots), count(n.calls), count(n.tasks), n.ran.toFixed(1) + " s", bytes(n.sent), bytes(n.shared), bytes(n.received), n.usage.length ? Math.max(...n.usage.map(s => s[2])) + "% of " + bytes(n.memory) : "", ready ? long(ready[0] - launched[0]) : "never", String(lives)]);
  }));
  $("money").hidden = !head.cost.length && !head.quotes.length;
  $("spent").textContent = head.spent;
  $("cost").hidden = !head.cost.length;
  fill($("quotes"), head.quotes.map(text => el("li", text)));
}
const line = texts => { const tr = el("tr"); texts.forEach((text, i) => { const td = el("td", undefined, i < texts.length - 1 ? "num" : ""); td.append(text); tr.append(td); }); return tr; };
function opener(node, slot, at, text) { // a call that has gone wrong, and a way to what it printed
  const button = el("button", text, "link"); button.title = "Show its output";
  button.onclick = () => { const hit = slot === null ? null : cellsOf(node, slot).find(c => c.begin <= at && at <= c.end + 1); ask(node, slot, hit || { begin: at, end: at }, text); };
  return button;
}

// ---------------------------------------------------------------- what tasks printed

const cellsOf = (node, slot) => [...lanes.values()].filter(l => l.node === node && l.slot === slot).flatMap(l => l.cells);
function ask(node, slot, when, text) { asked = { node, slot, begin: when.begin, end: when.end, text }; list(true); $("output").scrollIntoView({ block: "nearest" }); $("lines").focus({ preventScroll: true }); }
function list(jump) {
  const { node, slot, begin, end, text } = asked, run = head.run ? head.run.run : "RUN";
  const mine = [...output].filter(([key]) => slot === null || head.run?.executor === "thread" ? key.startsWith(node + ":") : key === node + ":" + slot);
  const all = mine.flatMap(([key, kept]) => kept.lines.map(l => [...l, key.split(":")[1]])).sort((a, b) => a[0] - b[0]);
  const during = l => begin <= l[0] && l[0] <= end + head.ticks / 10, first = all.findIndex(l => l[0] >= begin), middle = first < 0 ? all.length : first;
  const from = Math.max(0, Math.min(middle - LISTED / 2, all.length - LISTED)), some = all.slice(from, from + LISTED), dropped = mine.reduce((sum, [, kept]) => sum + kept.first, 0);
  $("output").hidden = false;
  $("whose").textContent = `Output of ${slot === null ? "" : "slot " + slot + " of "}node ${node}`;
  $("about-output").textContent = [text, all.length ? (all.some(during) ? "lines printed while it ran are marked" : "nothing was printed while it ran") : "nothing was printed there", dropped || some.length < all.length ? `all of it: skyward logs ${run} --node ${node}${slot === null ? "" : " --slot " + slot}` : ""].filter(Boolean).join(" · ");
  const box = $("lines"), was = box.scrollTop;
  fill(box, some.map(l => { const div = el("div", undefined, l[1] + (during(l) ? " during" : "")); div.append(el("time", time(l[0])), slot === null && l[3] !== "-1" ? ` [slot ${l[3]}] ` : " ", l[2]); return div; }));
  const marked = box.querySelector(".during") || box.children[middle - from];
  box.scrollTop = jump ? (marked ? marked.offsetTop - box.clientHeight / 4 : box.scrollHeight) : was;
}

// ---------------------------------------------------------------- drawing

const gutter = () => innerWidth < 600 ? 66 : 88;
const x = (t, width) => gutter() + (t - view[0]) / (view[1] - view[0]) * (width - gutter());
const back = (px, width) => view[0] + (px - gutter()) / (width - gutter()) * (view[1] - view[0]);

function sheet(canvas, height) {
  const width = canvas.clientWidth, ratio = devicePixelRatio || 1;
  canvas.style.height = height + "px"; canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  const c = canvas.getContext("2d"); c.scale(ratio, ratio); c.font = "11px system-ui, 'DejaVu Sans', sans-serif"; c.textBaseline = "middle";
  return [c, width];
}

function steps(width) {
  const rough = (view[1] - view[0]) / Math.max(2, (width - gutter()) / 90), power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find(f => f * power >= rough) * power;
  if (step >= 20 * head.ticks) step = ([30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200].find(s => s * head.ticks >= rough) || 86400) * head.ticks;
  const marks = [];
  for (let t = Math.ceil(view[0] / step) * step; t <= view[1]; t += step) marks.push(t);
  return [marks, step];
}

function paint() { if (!pending) { pending = true; requestAnimationFrame(() => { pending = false; draw(); }); } }

function draw() {
  if (!head) return;
  const began = performance.now(), style = getComputedStyle(document.documentElement);
  colours = new Proxy({}, { get: (_, name) => colours_[name] || (colours_[name] = style.getPropertyValue("--" + name).trim()) }); const colours_ = {};
  drawAxis(); drawLanes(); drawRate(); drawCost();
  $("span").textContent = head.now ? view.map(t => time(t, (view[1] - view[0]) / 100, view[1])).join(" to ") : "";
  document.body.dataset.drawn = (performance.now() - began).toFixed(1);
}

function drawAxis() {
  const [c, width] = sheet($("axis"), 22), [marks, step] = steps(width);
  c.fillStyle = colours.quiet; c.strokeStyle = colours.line;
  for (const t of marks) { const px = x(t, width), text = time(t, step, view[1]), w = c.measureText(text).width; c.fillText(text, Math.min(px - w / 2, width - w), 9); c.fillRect(px, 17, 1, 5); }
}

function drawLanes() {
  const box = $("lanes"), shown = box.clientHeight, from = box.scrollTop, [c, width] = sheet($("chart"), shown), [marks] = steps(width), left = gutter();
  c.fillStyle = colours.line;
  for (const t of marks) c.fillRect(x(t, width), 0, .5, shown);
  rows.forEach((row, index) => {
    const top = row.top - from;
    if (top + row.height < 0 || top > shown) return;
    c.save(); c.beginPath(); c.rect(left, top, width - left, row.height); c.clip();
    if (row.kind === "calls") drawMarks(c, row, top, width);
    else {
      drawStages(c, row, top, width);
      if (row.kind === "slot") drawTroubles(c, row, top, width); // below the names of calls
      if (row.kind === "usage") drawUsage(c, row, top, width); else if (row.kind === "slot") for (const lane of row.lanes) drawCells(c, lane, top, row.height, width); else drawShare(c, row, top, width);
      if (row.kind !== "slot") drawTroubles(c, row, top, width);
    }
    c.restore();
    c.fillStyle = index === chosen.row && document.activeElement === box ? colours.focus : row.kind === "slot" ? colours.quiet : colours.text;
    c.fillText(row.label, row.kind === "slot" || row.kind === "usage" ? 16 : 4, top + row.height / 2 + 1, left - 6);
    if (index === chosen.row && document.activeElement === box) { c.strokeStyle = colours.focus; c.strokeRect(.5, top + .5, width - 1, row.height - 1); }
  });
  if (drag) { c.fillStyle = colours.focus; c.globalAlpha = .2; c.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), shown); c.globalAlpha = 1; }
}

function drawStages(c, row, top, width) {
  row.node.stages.forEach(([t, , stage], i, all) => {
    if (!STAGES.includes(stage)) return;
    const from = x(t, width), to = x(i + 1 < all.length ? all[i + 1][0] : head.now, width);
    c.fillStyle = colours[stage]; c.fillRect(from, top, Math.max(.5, to - from), row.height);
    if (row.kind === "node" && i + 1 <= all.length && stage !== "ready" && to - from > c.measureText(stage).width + 8) { c.fillStyle = colours.quiet; c.fillText(stage, Math.max(from, gutter()) + 4, top + row.height / 2); }
  });
}

function drawCells(c, lane, top, height, width) {
  const scale = (width - gutter()) / (view[1] - view[0]);
  c.font = "10px system-ui, 'DejaVu Sans', sans-serif";
  for (const cell of lane.cells) {
    if (cell.end < view[0] || cell.begin > view[1]) continue;
    const from = x(cell.begin, width), wide = (cell.end - cell.begin) * scale;
    c.globalAlpha = cell.end > cell.begin ? .25 + .75 * cell.ran / (cell.end - cell.begin) : 1;
    if (lane.status && cell.calls === 1) c.globalAlpha = 1;
    c.fillStyle = colours[head.statuses[lane.status]];
    c.fillRect(from, top, Math.max(lane.status ? 2 : .6, wide > 4 ? wide - 1 : wide), height);
    const left = Math.max(from, gutter()), room = Math.min(from + wide, width) - left - 6;
    if (room < 24 || cell.calls > 1 && cell.function < 0) continue;
    const text = [called(cell), named(cell)].find(t => c.measureText(t).width <= room);
    if (text) { c.globalAlpha = 1; c.fillStyle = colours.back; c.fillText(text, left + 3, top + height / 2 + 1); }
  }
  c.globalAlpha = 1;
}

function drawUsage(c, row, top, width) { // percent in use, as steps from one sample to the next
  const samples = row.node.usage, low = top + row.height;
  c.fillStyle = colours[row.what === 1 ? "work" : "serialization"];
  samples.forEach((sample, i) => {
    const from = x(sample[0], width), to = x(i + 1 < samples.length ? samples[i + 1][0] : Math.min(head.now, sample[0] + 4 * head.ticks), width), high = sample[row.what] / 100 * (row.height - 1);
    c.fillRect(from, low - high, Math.max(.6, to - from + .5), high);
  });
}

function drawShare(c, row, top, width) { // how many slots of the node were busy, per pixel
  const left = gutter(), many = Math.ceil(width - left), scale = many / (view[1] - view[0]), sums = new Float64Array(many + 1), slots = Math.max(1, row.node.slots, row.slots.size);
  const marks = [];
  for (const lanesOf of row.slots.values()) for (const lane of lanesOf) {
    for (const cell of lane.cells) {
      if (cell.end < view[0] || cell.begin > view[1]) continue;
      const from = (cell.begin - view[0]) * scale, to = (cell.end - view[0]) * scale, share = to > from ? cell.ran / (cell.end - cell.begin) : 0;
      for (let p = Math.max(0, Math.floor(from)), last = Math.min(many - 1, Math.floor(to)); p <= last; p++) sums[p] += share * Math.max(0, Math.min(to, p + 1) - Math.max(from, p));
      if (lane.status) marks.push([cell.begin, Math.max(2, Math.min(to - from, 3)), lane.status]);
    }
  }
  c.fillStyle = colours.returned;
  for (let p = 0; p < many; p++) if (sums[p] > 0) { const h = Math.max(1, Math.min(1, sums[p] / slots) * row.height); c.fillRect(left + p, top + row.height - h, 1, h); }
  for (const [t, wide, status] of marks) { c.fillStyle = colours[head.statuses[status]]; c.fillRect(x(t, width), top, wide, 8); }
}

function drawTroubles(c, row, top, width) {
  for (const [from, to] of row.node.silences) hatch(c, x(from, width), top, Math.max(3, x(to === null ? head.now : to, width) - x(from, width)), row.height);
  for (const [t] of row.node.notices) { c.fillStyle = colours.notice; c.fillRect(x(t, width) - 1, top, 3, row.height); }
  if (row.kind === "node") for (const [t, kind, node] of head.incidents) if (node === row.node.node && (kind === "node lost" || kind === "did not start" || kind === "given up")) cross(c, x(t, width), top, row.height);
}
function hatch(c, left, top, width, height) {
  c.save(); c.beginPath(); c.rect(left, top, width, height); c.clip(); c.strokeStyle = colours.silent; c.lineWidth = 1.5; c.beginPath();
  for (let d = -height; d < Math.min(width, 4000); d += 6) { c.moveTo(left + d, top + height); c.lineTo(left + d + height, top); }
  c.stroke(); c.restore();
}
function cross(c, px, top, height) { c.fillStyle = colours.died; c.fillRect(px - 1.5, top, 3, height); c.beginPath(); c.moveTo(px - 6, top); c.lineTo(px + 6, top); c.lineTo(px, top + 9); c.fill(); }
function drawMarks(c, row, top, width) {
  c.fillStyle = colours.ready; c.fillRect(gutter(), top, width, row.height);
  for (const [t, kind] of row.marks) { c.fillStyle = kind === "retried" ? colours.retry : colours.died; c.fillRect(x(t, width) - 1, top, 3, row.height); }
}

function drawRate() {
  const [c, width] = sheet($("rate"), 90), left = gutter(), bar = 7 * (view[1] - view[0]) / (width - left);
  const together = Math.max(1, Math.ceil(bar / head.rate.width)), wide = head.rate.width * together, amounts = [];
  head.rate.amounts.forEach((n, i) => { const at = Math.floor(i / together); amounts[at] = (amounts[at] || 0) + n; });
  const most = Math.max(1e-9, ...amounts), peak = most / (wide / head.ticks);
  $("peak").textContent = amounts.length ? `at most ${peak < 10 ? peak.toFixed(1) : count(Math.round(peak))}, ${long(wide)} a bar` : "";
  scaleOf(c, width, 90, amounts.length ? most / (wide / head.ticks) : 0, v => v >= 1000 ? (v / 1000).toFixed(1) + "k" : v < 10 ? v.toFixed(1) : v.toFixed(0));
  c.beginPath(); c.rect(left, 0, width - left, 90); c.clip(); c.fillStyle = colours.returned;
  amounts.forEach((n, i) => { const from = x(i * wide, width), to = x((i + 1) * wide, width); if (n && to > left && from < width) c.fillRect(from, 88 - n / most * 78, Math.max(1, to - from - (to - from > 3 ? .5 : 0)), n / most * 78); });
}
function drawCost() {
  if (!head.cost.length) return;
  const [c, width] = sheet($("cost"), 70), most = Math.max(1e-9, ...head.cost.map(p => p[1])), y = v => 68 - v / most * 58;
  scaleOf(c, width, 70, most, v => "$" + v.toFixed(v < 1 ? 4 : 2));
  c.beginPath(); c.rect(gutter(), 0, width, 70); c.clip(); c.strokeStyle = colours.work; c.lineWidth = 2; c.beginPath(); c.moveTo(x(0, width), y(0));
  for (const [t, dollars] of head.cost) c.lineTo(x(t, width), y(dollars));
  c.lineTo(x(head.now, width), y(head.cost[head.cost.length - 1][1])); c.stroke();
}
function scaleOf(c, width, height, most, say) {
  c.fillStyle = colours.line; c.fillRect(gutter(), 9.5, width, .5); c.fillRect(gutter(), height - 2, width, 1);
  c.fillStyle = colours.quiet; c.fillText(say(most), 4, 10, gutter() - 8); c.fillText("0", 4, height - 7);
}

// ---------------------------------------------------------------- looking closer

function zoom(factor, at) {
  const middle = at === undefined ? (view[0] + view[1]) / 2 : at, span = Math.max(20, Math.min((view[1] - view[0]) * factor, end()));
  const share = (middle - view[0]) / (view[1] - view[0]);
  show(middle - share * span, middle - share * span + span);
}
function show(from, to) {
  const last = end(), span = Math.min(to - from, last); from = Math.max(0, Math.min(from, last - span));
  view = [from, from + span]; whole = span >= last; paint();
}
function rowAt(py) { const y = py + $("lanes").scrollTop; return rows.findIndex(r => y >= r.top && y < r.top + r.height + 1); }
function toggle(index) {
  const row = rows[index]; if (!row || row.kind !== "node") return;
  opened.has(row.node.node) ? opened.delete(row.node.node) : opened.add(row.node.node); arrange(); paint();
}

const named = cell => cell.function < 0 ? "several functions" : head.functions[cell.function][0] || "";
const called = cell => { const name = named(cell); return cell.calls > 1 ? `${count(cell.calls)} × ${name}` : cell.first < 0 ? name : `${name}, task${cell.tasks === 1 ? " " + cell.first : `s ${cell.first} to ${cell.first + cell.tasks - 1}`}`; };
const about = cell => `${called(cell)}: ${status(cell.status)} on slot ${cell.slot} of node ${cell.node}\n` + (cell.calls === 1 ? `call ${cell.batch}, ${counted(cell.tasks, "task")}` : `${count(cell.calls)} calls from ${cell.batch} on, ${count(cell.tasks)} tasks`) + `\nat ${time(cell.begin)}, for ${long(cell.end - cell.begin)}` + (cell.calls > 1 ? `, ${cell.end > cell.begin ? (cell.ran / (cell.end - cell.begin) * 100).toFixed(0) : 100}% busy` : cell.end - cell.begin > cell.ran ? `, of which ${long(cell.end - cell.begin - cell.ran)} to open it and import modules` : "");
function cellAt(row, t, slack) {
  for (const lane of [...row.lanes].reverse()) { const hit = lane.cells.find(c => c.begin - (lane.status ? slack : slack / 3) <= t && t <= c.end + (lane.status ? slack : slack / 3)); if (hit) return hit; }
}
function askAt(row, t, slack) { // what was printed there
  if (!row || row.kind === "calls") return;
  const hit = row.kind === "slot" ? cellAt(row, t, slack) : null;
  ask(row.node.node, row.kind === "slot" ? row.slot : null, hit || { begin: t, end: t }, hit ? called(hit) : "at " + time(t));
}
function say(row, t, slack) { // what is there at this tick
  if (!row) return "";
  if (row.kind === "calls") return row.marks.filter(m => Math.abs(m[0] - t) <= slack).slice(0, 4).map(m => `${m[4]}: ${m[1]} at ${time(m[0])}\n${m[5]}`).join("\n");
  const told = [], n = row.node;
  if (row.kind === "usage") { const sample = [...n.usage].reverse().find(s => s[0] <= t); if (sample) told.push(row.what === 1 ? `node ${n.node} at ${time(t)}: ${sample[1]}% of its CPU` : `node ${n.node} at ${time(t)}: ${sample[2]}% of ${bytes(n.memory)} of memory`); }
  if (row.kind === "slot") { const hit = cellAt(row, t, slack); if (hit) told.push(about(hit)); }
  const stage = [...n.stages].reverse().find(s => s[0] <= t);
  if (row.kind === "node") {
    let busy = 0; for (const ls of row.slots.values()) if (ls.some(l => l.cells.some(c => c.begin <= t && t <= c.end))) busy++;
    told.push(`node ${n.node}${n.host ? " on " + n.host : ""} at ${time(t)}${stage ? ": " + stage[2] + (stage[3] ? ", " + stage[3] : "") : ""}` + (stage && stage[2] === "ready" ? `\n${busy} of ${counted(n.slots, "slot")} busy` : ""));
    for (const i of head.incidents) if (i[2] === n.node && Math.abs(i[0] - t) <= slack && told.length < 5) told.push(`${i[4] ? i[4] + ": " : ""}${i[1]} at ${time(i[0])}: ${i[5]}`);
  } else if (!told.length && row.kind === "slot") told.push(`slot ${row.slot} of node ${n.node} at ${time(t)}: ${stage && stage[2] !== "ready" ? stage[2] : "idle"}`);
  const silent = n.silences.find(s => s[0] <= t && (s[1] === null || t <= s[1])); if (silent) told.push(`silent for ${long((silent[1] === null ? head.now : silent[1]) - silent[0])}`);
  return told.join("\n");
}
function tip(text, px, py) {
  const t = $("tip"); t.hidden = !text; if (!text) return; t.textContent = text;
  t.style.left = Math.max(4, Math.min(px + 14, innerWidth - t.offsetWidth - 4)) + "px"; t.style.top = (py + 18 + t.offsetHeight > innerHeight ? py - t.offsetHeight - 10 : py + 18) + "px";
}
const local = event => { const r = $("chart").getBoundingClientRect(); return [event.clientX - r.left, event.clientY - r.top, r.width]; };

$("chart").addEventListener("pointermove", event => {
  const [px, py, width] = local(event);
  if (drag) { drag.to = Math.max(gutter(), px); paint(); return; }
  if (px < gutter()) return tip("");
  tip(say(rows[rowAt(py)], back(px, width), (view[1] - view[0]) / width * 3), event.clientX, event.clientY);
});
$("chart").addEventListener("pointerdown", event => { const [px] = local(event); if (px >= gutter() && event.button === 0) { drag = { from: px, to: px }; $("chart").setPointerCapture(event.pointerId); } });
$("chart").addEventListener("pointerup", event => {
  const [px, py, width] = local(event), was = drag; drag = null;
  if (was && Math.abs(was.to - was.from) > 6) { const ends = [was.from, was.to].map(p => back(p, width)).sort((a, b) => a - b); show(...ends); } else if (px < gutter()) toggle(rowAt(py)); else { if (was) askAt(rows[rowAt(py)], back(px, width), (view[1] - view[0]) / width * 3); paint(); }
});
$("chart").addEventListener("pointercancel", () => { drag = null; paint(); });
$("chart").addEventListener("pointerleave", () => tip(""));
$("chart").addEventListener("dblclick", () => show(0, end()));
$("chart").addEventListener("wheel", event => { if (event.ctrlKey || event.metaKey) { event.preventDefault(); const [px, , width] = local(event); zoom(event.deltaY > 0 ? 1.25 : .8, back(px, width)); } }, { passive: false });
$("lanes").addEventListener("scroll", paint);
$("lanes").addEventListener("focus", paint); $("lanes").addEventListener("blur", () => { tip(""); paint(); });
$("lanes").addEventListener("keydown", event => {
  const row = rows[chosen.row], move = { ArrowUp: -1, ArrowDown: 1 }[event.key], along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === "+" || event.key === "=") zoom(.6); else if (event.key === "-") zoom(1.6); else if (event.key === "0") show(0, end());
  else if ((event.key === "Enter" || event.key === " ") && row && row.kind === "slot") { const cell = row.lanes.flatMap(l => l.cells).sort((a, b) => a.begin - b.begin)[chosen.cell]; askAt(row, cell ? cell.begin : head.now, 1); }
  else if (event.key === "Enter" || event.key === " ") toggle(chosen.row);
  else if (event.key === "Escape") tip("");
  else if (move && rows.length) { chosen = { row: Math.max(0, Math.min(rows.length - 1, chosen.row + move)), cell: -1 }; const r = rows[chosen.row], box = $("lanes"); if (r.top < box.scrollTop) box.scrollTop = r.top; if (r.top + r.height > box.scrollTop + box.clientHeight) box.scrollTop = r.top + r.height - box.clientHeight; point(""); }
  else if (along && row) {
    const stops = row.kind === "slot" ? row.lanes.flatMap(l => l.cells).sort((a, b) => a.begin - b.begin) : row.kind === "usage" ? row.node.usage.map(s => ({ begin: s[0] })) : row.kind === "node" ? [...row.node.stages.map(s => s[0]), ...head.incidents.filter(i => i[2] === row.node.node).map(i => i[0])].sort((a, b) => a - b).map(t => ({ begin: t })) : row.marks.map(m => ({ begin: m[0] }));
    if (!stops.length) return;
    chosen.cell = Math.max(0, Math.min(stops.length - 1, chosen.cell + along)); const at = stops[chosen.cell];
    if (at.begin < view[0] || at.begin > view[1]) show(at.begin - (view[1] - view[0]) / 2, at.begin + (view[1] - view[0]) / 2);
    point(at.end === undefined ? say(row, at.begin, 1) : about(at), at.begin);
  } else return;
  event.preventDefault(); paint();
});
function point(text, t) {
  const row = rows[chosen.row], r = $("chart").getBoundingClientRect(); $("spoken").textContent = text || row.label;
  if (text) tip(text, r.left + x(t, r.width), r.top + row.top - $("lanes").scrollTop + row.height); else tip("");
}
$("close").onclick = () => { asked = null; $("output").hidden = true; };
$("in").onclick = () => zoom(.5); $("out").onclick = () => zoom(2); $("whole").onclick = () => show(0, end());
$("work").onclick = () => { let from = Infinity, to = 0; for (const l of lanes.values()) for (const c of l.cells) { from = Math.min(from, c.begin); to = Math.max(to, c.end); } if (to > from) show(from - (to - from) * .02, to + (to - from) * .02); };
$("open").onclick = () => { const all = opened.size < head.nodes.length; opened = new Set(all ? head.nodes.map(n => n.node) : []); $("open").textContent = all ? "Hide slots" : "Show slots"; arrange(); paint(); };
new ResizeObserver(paint).observe(document.body); new ResizeObserver(paint).observe($("lanes"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

// ---------------------------------------------------------------- where it comes from

if (LIVE) {
  const source = new EventSource("events");
  source.onmessage = event => take(JSON.parse(event.data));
  source.addEventListener("over", () => source.close());
  source.onerror = () => { if (head && !head.ended) { $("state").textContent = "connection lost, trying again"; $("state").className = "badge bad"; } };
} else take(JSON.parse($("data").textContent));
