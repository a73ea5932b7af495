"""The HTML page of a timeline: its style, and the script for zooming, pointing and following links."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --back: #fff; --panel: #f5f6f8; --lane: #f0f2f5; --line: #d5d9e0; --ink: #1c2430; --faint: #667085;
  --ok: #9fd3ae; --ok-ink: #0d3b1c; --read: #b9d7f5; --read-ink: #0e3157; --failed: #d3d6dc; --failed-ink: #4a5261;
  --unknown: #f6c667; --unknown-ink: #4f3500; --wrong: #c81e3a; --mark: #d9c8f3; --mark-ink: #3c1f6b; }
@media (prefers-color-scheme: dark) { :root {
  --back: #14171c; --panel: #1d2128; --lane: #1a1e25; --line: #353c48; --ink: #e4e8ee; --faint: #98a2b3;
  --ok: #2c6b40; --ok-ink: #dcf5e3; --read: #2a527d; --read-ink: #dcebfb; --failed: #3c424d; --failed-ink: #b6bdc9;
  --unknown: #8a6210; --unknown-ink: #ffe9bd; --wrong: #ff5c77; --mark: #4a3570; --mark-ink: #e9dcff; } }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { background: var(--back); color: var(--ink); font: 13px/1.45 system-ui, sans-serif;
  display: flex; flex-direction: column; }
header { padding: 10px 16px 8px; border-bottom: 1px solid var(--line); background: var(--panel);
  max-height: 42vh; overflow: auto; flex: none; }
h1 { font-size: 15px; font-weight: 600; margin: 0 0 6px; }
h1::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 8px;
  background: var(--ok); }
h1.wrong::before { background: var(--wrong); }
h1.undecided::before { background: var(--unknown); }
.origin { margin: 0 0 6px; color: var(--faint); }
details.anomaly { margin: 4px 0; border-left: 3px solid transparent; padding-left: 8px; }
details.anomaly.chosen { border-left-color: var(--wrong); }
summary { cursor: pointer; font-weight: 600; }
pre { margin: 4px 0 6px; font: 12px/1.5 ui-monospace, monospace; white-space: pre-wrap; }
.tools { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; padding: 6px 16px; flex: none;
  border-bottom: 1px solid var(--line); color: var(--faint); }
.tools button { font: inherit; color: var(--ink); background: var(--back); border: 1px solid var(--line);
  border-radius: 4px; padding: 2px 9px; cursor: pointer; }
.tools label { cursor: pointer; }
.swatch { display: inline-block; width: 22px; height: 11px; border-radius: 2px; margin-right: 5px;
  vertical-align: -1px; }
.chart { flex: 1; overflow: auto; min-height: 0; display: grid; grid-template-columns: max-content max-content;
  grid-template-rows: 24px max-content; position: relative; align-content: start; }
.corner, .axis { position: sticky; top: 0; background: var(--panel); z-index: 3; border-bottom: 1px solid var(--line); }
.corner { left: 0; z-index: 4; }
.axis { z-index: 2; }
.names { position: sticky; left: 0; z-index: 3; background: var(--back); border-right: 1px solid var(--line);
  width: 104px; }
.name { position: absolute; left: 0; right: 0; padding: 1px 8px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; font-weight: 600; }
.name.marks { color: var(--faint); font-weight: 400; }
svg { display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); pointer-events: none; }
.axis text { fill: var(--faint); }
.lane { fill: var(--lane); }
.lane.marks { fill: transparent; }
.grid line { stroke: var(--line); stroke-width: 1; }
.operation { cursor: pointer; }
.operation rect { stroke-width: 1; }
.write.ok rect { fill: var(--ok); } .write.ok text { fill: var(--ok-ink); }
.read.ok rect { fill: var(--read); } .read.ok text { fill: var(--read-ink); }
.stale.ok rect { fill: var(--read); fill-opacity: .45; stroke: var(--read-ink); stroke-opacity: .5;
  stroke-dasharray: 3 3; }
.operation.failed rect { fill: var(--failed); } .operation.failed text { fill: var(--failed-ink);
  text-decoration: line-through; }
.operation.unknown rect { fill: url(#fading); } .operation.unknown text { fill: var(--unknown-ink); }
.span rect { fill: var(--mark); } .mark text { fill: var(--mark-ink); }
.moment rect { fill: transparent; }
.moment .flag { fill: var(--mark-ink); }
.moment text { fill: var(--ink); }
.guides line { stroke: var(--mark-ink); stroke-opacity: .28; stroke-dasharray: 2 4; }
.other { opacity: .22; }
.same rect { stroke: var(--ink); stroke-width: 2; }
.culprit rect { stroke: var(--wrong); stroke-width: 5; }
.found rect { stroke: var(--mark-ink); stroke-width: 5; }
pre a { color: inherit; text-decoration: underline dotted; cursor: pointer; }
.culprit text { font-weight: 700; }
.beacon { fill: var(--wrong); fill-opacity: .10; }
.card { position: fixed; z-index: 9; max-width: 460px; padding: 7px 10px; background: var(--panel); color: var(--ink);
  border: 1px solid var(--line); border-radius: 5px; box-shadow: 0 3px 12px #0004; pointer-events: none;
  overflow-wrap: anywhere; }
.card div:first-child { font-weight: 600; }
.card[hidden] { display: none; }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const chart = document.querySelector(".chart"), plane = document.getElementById("plane");
const axis = document.getElementById("axis"), card = document.querySelector(".card");
const operations = [...plane.querySelectorAll(".operation")], marks = [...plane.querySelectorAll(".mark")];
const byNumber = new Map(operations.map(bar => [Number(bar.dataset.number), bar]));
const BAR = 80, EVEN = 40, FADE = 26, LEAST = 4, MARGIN = 16, WIDEST = 400000;
const span = Math.max(data.end - data.start, 1e-6);

// The scale at which a bar of usual length is wide enough for its label.
const lengths = operations.map(bar => bar.dataset.until - bar.dataset.from).sort((a, b) => a - b);
const usual = Math.max(lengths[lengths.length >> 1] || 1, span / 20000);
let evenly = span / usual * BAR > 30000;
let scale = 1;

// Evenly: moments at which something begins or ends are equally far apart, however long nothing happens between them.
function rank(ms) {
  let low = 0, high = data.moments.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (data.moments[middle] <= ms) low = middle; else high = middle;
  }
  const from = data.moments[low], until = data.moments[high];
  return until > from ? low + (ms - from) / (until - from) * (high - low) : low;
}
function unscaled(ms) { return evenly ? rank(ms) * EVEN : (ms - data.start) / usual * BAR; }
function place(ms) { return MARGIN + unscaled(ms) * scale; }
function timeAt(x) {
  const wanted = Math.max(0, (x - MARGIN) / scale);
  if (!evenly) return Math.min(data.end, data.start + wanted * usual / BAR);
  const at = Math.min(wanted / EVEN, data.moments.length - 1), low = Math.floor(at);
  const from = data.moments[low], until = data.moments[Math.min(low + 1, data.moments.length - 1)];
  return from + (until - from) * (at - low);
}
function make(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  parent.append(made);
  return made;
}
function layOut() {
  const width = place(data.end) + 150, height = plane.getAttribute("height");
  plane.setAttribute("width", width);
  axis.setAttribute("width", width);
  for (const bar of operations) {
    const x = place(+bar.dataset.from), open = bar.classList.contains("unknown");
    bar.setAttribute("x", x);
    bar.setAttribute("width", Math.max(LEAST, place(+bar.dataset.until) - x) + (open ? FADE : 0));
  }
  const guides = document.getElementById("guides");
  guides.replaceChildren();
  for (const mark of marks) {
    const x = place(+mark.dataset.from), moment = mark.classList.contains("moment");
    const room = mark.dataset.room === undefined ? 400 : place(+mark.dataset.room) - x - 2;
    mark.setAttribute("x", x);
    mark.setAttribute("width", Math.max(LEAST, moment ? Math.min(room, 400) : place(+mark.dataset.until) - x));
    if (moment) make("line", { x1: x, x2: x, y1: +mark.getAttribute("y"), y2: height }, guides);
  }
  drawAxis(width, height);
  shine();
}
function drawAxis(width, height) {
  const grid = document.getElementById("grid");
  grid.replaceChildren();
  axis.replaceChildren();
  const tick = (x, ms, digits) => {
    make("line", { x1: x, x2: x, y1: 0, y2: height }, grid);
    make("text", { x: x + 3, y: 16 }, axis).textContent = ms.toFixed(digits) + " ms";
  };
  if (evenly) {
    for (let x = MARGIN; x < place(data.end) + 1; x += 110) tick(x, timeAt(x), span < 1000 ? 2 : 0);
    return;
  }
  const rough = 110 * usual / BAR / scale, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(each => each >= rough) || rough;
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  for (let ms = Math.ceil(data.start / step) * step; ms <= data.end; ms += step) tick(place(ms), ms, digits);
}
function zoom(factor, x) {
  const middle = x === undefined ? chart.clientWidth / 2 : x, names = document.querySelector(".names").offsetWidth;
  const ms = timeAt(chart.scrollLeft + middle - names);
  scale = Math.min(Math.max(scale * factor, 40 / unscaled(data.end)), WIDEST / unscaled(data.end));
  layOut();
  chart.scrollLeft = place(ms) - middle + names;
}
function fit() {
  scale = (chart.clientWidth - document.querySelector(".names").offsetWidth - 180) / Math.max(unscaled(data.end), 1);
  layOut();
}

// Choosing an anomaly highlights its operations and dims those of other keys.
let chosen = null, places = new Map();
function choose(number) {
  chosen = number === null ? null : data.anomalies[number] || null;
  places = new Map((chosen ? chosen.order : []).map((each, at) => [each, at + 1]));
  const keys = new Set(chosen ? chosen.keys : []), culprits = new Set(chosen ? chosen.culprits : []);
  for (const bar of operations) {
    const each = Number(bar.dataset.number);
    bar.classList.toggle("culprit", culprits.has(each));
    bar.classList.toggle("other", keys.size > 0 && !data.keys[each].some(key => keys.has(key)));
  }
  for (const anomaly of document.querySelectorAll(".anomaly"))
    anomaly.classList.toggle("chosen", chosen !== null && Number(anomaly.dataset.anomaly) === number);
  shine();
  show();
}
function first() { return chosen === null ? undefined : byNumber.get(chosen.culprits[0]); }
function shine() {
  const beacon = document.getElementById("beacon"), bar = first();
  beacon.setAttribute("width", bar ? bar.getAttribute("width") : 0);
  if (bar) beacon.setAttribute("x", bar.getAttribute("x"));
}
function show(bar = first()) {
  if (!bar) {
    // A run ends with its violation: the cause is at the end.
    if (data.violated) chart.scrollLeft = chart.scrollWidth;
    return;
  }
  const room = chart.clientWidth - document.querySelector(".names").offsetWidth;
  chart.scrollLeft = +bar.getAttribute("x") - room * .6;
  chart.scrollTop = +bar.getAttribute("y") - chart.clientHeight / 2;
}

function point(bar, event) {
  for (const other of operations) other.classList.remove("same");
  card.hidden = bar === null;
  if (bar === null) return;
  let lines;
  if (bar.dataset.number === undefined) {
    const until = bar.classList.contains("span") ? " to " + (+bar.dataset.until).toFixed(3) : "";
    lines = [bar.dataset.text, (+bar.dataset.from).toFixed(3) + until + " ms"];
  } else {
    const number = Number(bar.dataset.number), keys = new Set(data.keys[number]);
    lines = [...data.details[number]];
    if (places.has(number)) lines.push("number " + places.get(number) + " in the order that there was before");
    if (chosen && chosen.culprits.includes(number)) lines.push("has no place in any order");
    for (const other of operations)
      if (data.keys[Number(other.dataset.number)].some(key => keys.has(key))) other.classList.add("same");
  }
  card.replaceChildren(...lines.map(line => Object.assign(document.createElement("div"), { textContent: line })));
  const box = card.getBoundingClientRect();
  card.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + "px";
  const below = event.clientY + 18, above = event.clientY - box.height - 10;
  card.style.top = (below + box.height < innerHeight ? below : above) + "px";
}
plane.addEventListener("mousemove", event => point(event.target.closest(".operation, .mark"), event));
plane.addEventListener("mouseleave", event => point(null, event));
chart.addEventListener("wheel", event => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.25 : .8, event.clientX - chart.getBoundingClientRect().left);
}, { passive: false });
document.getElementById("nearer").onclick = () => zoom(1.6);
document.getElementById("further").onclick = () => zoom(1 / 1.6);
document.getElementById("fit").onclick = fit;
document.getElementById("wrong").onclick = () => show();
for (const link of document.querySelectorAll("[data-to]"))
  link.onclick = () => {
    const bar = byNumber.get(Number(link.dataset.to));
    for (const other of operations) other.classList.toggle("found", other === bar);
    show(bar);
  };
// A bar that starts left of the visible part has its label at the edge.
chart.addEventListener("scroll", () => {
  for (const mark of marks)
    if (mark.classList.contains("span")) {
      const hidden = Math.min(chart.scrollLeft - mark.getAttribute("x"), mark.getAttribute("width") - 60);
      mark.querySelector("text").setAttribute("x", 5 + Math.max(0, hidden));
    }
});
document.getElementById("evenly").onchange = event => {
  evenly = event.target.checked; scale = 1; layOut(); show();
};
document.addEventListener("keydown", event => {
  if (event.key === "+") zoom(1.6); else if (event.key === "-") zoom(1 / 1.6); else if (event.key === "0") fit();
});
for (const anomaly of document.querySelectorAll(".anomaly"))
  anomaly.querySelector("summary").addEventListener("click", () => choose(Number(anomaly.dataset.anomaly)));
document.getElementById("evenly").checked = evenly;
document.getElementById("wrong").hidden = data.anomalies.length === 0 && !data.violated;
layOut();
choose(data.anomalies.length ? 0 : null);
"""

PAGE = (
    """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title><!--title--></title>
<style>"""
    + STYLE
    + """</style></head>
<body>
<header><h1 class="<!--outcome-->"><!--head--></h1><!--origin--><!--anomalies--></header>
<div class="tools">
<span><button id="further" title="key -">−</button> <button id="nearer" title="key +, or Ctrl and the wheel">+</button>
<button id="fit" title="key 0">all of it</button> <button id="wrong">where it goes wrong</button></span>
<label title="Each moment at which anything begins or ends is as far from the next">
<input type="checkbox" id="evenly"> moments evenly spaced</label>
<span><i class="swatch" style="background:var(--ok)"></i>write</span>
<span><i class="swatch" style="background:var(--read)"></i>read</span>
<span><i class="swatch" style="border:1px dashed var(--read-ink)"></i>stale read</span>
<span><i class="swatch" style="background:linear-gradient(90deg,var(--unknown),transparent)"></i>unknown</span>
<span><i class="swatch" style="background:var(--failed)"></i>failed</span>
<span><i class="swatch" style="border:2px solid var(--wrong)"></i>no place</span>
</div>
<div class="chart">
<div class="corner"></div><div class="axis"><svg id="axis" height="24"></svg></div>
<div class="names" style="height:<!--height-->px"><!--names--></div>
<svg id="plane" height="<!--height-->">
<defs><linearGradient id="fading"><stop offset="0" stop-color="var(--unknown)"/>
<stop offset=".45" stop-color="var(--unknown)"/><stop offset="1" stop-color="var(--unknown)" stop-opacity="0"/>
</linearGradient></defs>
<!--lanes--><g id="grid" class="grid"></g>
<rect id="beacon" class="beacon" y="0" height="<!--height-->" width="0"/><g id="guides" class="guides"></g>
<!--bars-->
</svg></div>
<div class="card" hidden></div>
<script type="application/json" id="data"><!--data--></script>
<script>"""
    + SCRIPT
    + """</script>
</body></html>
"""
)
