// The page of the service: pictures in, readings out. Every picture is one request, so that answers appear as they come.

import { $, element, percent, tone } from "./elements.js";

const AT_ONCE = 4; // requests under way
const PATIENCE = 60; // how often a full queue is tried again

let items = []; // {file, name, url, record, error}, in the order they came
let waiting = []; // items to be read
let chosen = null; // the item shown
let running = 0;
let round = 0; // answers to questions of an earlier round, with other options, are dropped
let pasted = 0;

// ---------------------------------------------------------------- pictures in

function add(files) {
  const added = Array.from(files, (file) => ({ file, name: file.name, url: URL.createObjectURL(file), record: null, error: null }));
  if (!added.length) return;
  for (const item of added) {
    items.push(item);
    $("rows").append(makeRow(item));
  }
  $("drop").classList.add("small");
  $("batch").hidden = false;
  choose(added[0]);
  read(added);
}

function clear() {
  for (const item of items) URL.revokeObjectURL(item.url);
  items = [];
  waiting = [];
  round += 1;
  $("rows").replaceChildren();
  $("batch").hidden = true;
  $("drop").classList.remove("small");
  choose(null);
  $("files").focus();
}

function listen() {
  $("files").addEventListener("change", () => {
    add($("files").files);
    $("files").value = ""; // the same file may be chosen again
  });
  window.addEventListener("paste", (event) => {
    const files = Array.from(event.clipboardData.files, (file) => {
      pasted += 1;
      return new File([file], `pasted-${pasted}.${file.type.split("/")[1] || "bin"}`, { type: file.type });
    });
    if (files.length) event.preventDefault();
    add(files);
  });
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop").classList.remove("over");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    add(event.dataTransfer.files);
  });
}

// ---------------------------------------------------------------- options

/** The options as a query, or null where one makes no sense. */
function query() {
  const own = $("charset").value === "own";
  $("own-field").hidden = !own;
  const length = $("length");
  const [shortest, longest = shortest] = length.value.split("-").map(Number);
  const valid = length.checkValidity() && !(shortest > longest) && !(longest > 64);
  $("options-error").textContent = valid ? "" : "Length: a number such as 4 or a range such as 3-6, up to 64.";
  if (!valid) return null;
  const values = { charset: own ? $("own").value : $("charset").value };
  for (const id of ["length", "case", "prefer", "pattern", "frames"]) values[id] = $(id).value.trim();
  return new URLSearchParams(Object.entries(values).filter(([, value]) => value));
}

function reread() {
  if (query() === null) return;
  for (const item of items) Object.assign(item, { record: null, error: null });
  waiting = [];
  round += 1;
  read(items);
}

function listenToOptions() {
  let timer;
  $("options").addEventListener("submit", (event) => event.preventDefault());
  $("options").addEventListener("input", () => {
    query(); // shows at once what is wrong
    clearTimeout(timer);
    timer = setTimeout(reread, 250);
  });
}

// ---------------------------------------------------------------- requests

function headers(more = {}) {
  const key = sessionStorage.getItem("key");
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

function read(more) {
  waiting.push(...more);
  for (const item of more) show(item);
  while (running < AT_ONCE && waiting.length) work();
}

async function work() {
  running += 1;
  while (waiting.length) {
    const item = waiting.shift();
    const mine = round;
    const answer = await ask(item.file);
    if (mine !== round) continue;
    Object.assign(item, answer);
    show(item);
  }
  running -= 1;
}

/** One picture's record or error. */
async function ask(file) {
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const options = query() ?? "";
  try {
    for (let time = 0; time < PATIENCE; time += 1) {
      const response = await fetch(`v1/read?${options}`, { method: "POST", body: file, headers: headers({ "Content-Type": type }) });
      const body = await response.json();
      if (response.ok) return { record: body, error: null };
      if (response.status === 401) askForKey();
      if (response.status !== 429) return { record: null, error: body.detail };
      await new Promise((resolve) => setTimeout(resolve, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
    }
    return { record: null, error: "The service is busy: try again later." };
  } catch {
    return { record: null, error: "The service does not answer: is it still running?" };
  }
}

function askForKey() {
  if (!$("key-form").hidden) return;
  $("key-form").hidden = false;
  $("key").focus();
}

async function describeModel() {
  const response = await fetch("v1/model", { headers: headers() }).catch(() => null);
  if (response?.status === 401) askForKey();
  if (!response?.ok) return;
  const model = await response.json();
  $("model").textContent = `weights ${model.weights}, ${model.charset.length} characters`;
}

function listenToKey() {
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("key", $("key").value);
    $("key-form").hidden = true;
    describeModel();
    reread();
  });
}

// ---------------------------------------------------------------- one reading

function choose(item) {
  chosen = item;
  $("result").hidden = item === null;
  for (const other of items) other.row.classList.toggle("chosen", other === item);
  if (item) draw(item);
}

function show(item) {
  fillRow(item);
  if (item === chosen) draw(item);
  const read = items.filter((other) => other.record).length;
  const failed = items.filter((other) => other.error).length;
  $("status").textContent = `${read} of ${items.length} read${failed ? `, ${failed} could not be` : ""}`;
}

function draw(item) {
  const { record, error } = item;
  $("name").textContent = item.name;
  $("error").textContent = error ?? "";
  $("text").textContent = record ? record.text || "no text found" : error ? "" : "reading …";
  $("text").classList.toggle("empty", !record?.text);
  $("copy").hidden = !record?.text;
  $("copy").textContent = "Copy";
  $("confidence").textContent = record ? `${percent(record.confidence)} sure of the whole text` : "";
  const characters = record?.characters ?? [];
  drawPicture(item, characters);
  $("characters").replaceChildren(...characters.map(makeTile));
  keepInside();
}

function drawPicture(item, characters) {
  const image = element("img", { src: item.url, alt: `The picture ${item.name}` });
  image.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    $("picture").style.width = `${Math.max(Math.min(3 * width, 26 * 16), width)}px`;
    $("picture").append(drawBoxes(characters, width, height));
    for (const [place, { char, score, box }] of characters.entries()) {
      const label = element("span", { text: char, className: `label ${tone(score)}`, ariaHidden: "true" });
      label.style.left = `${(50 * (box[0] + box[2])) / width}%`;
      label.dataset.place = place;
      $("picture").append(label);
    }
  });
  image.addEventListener("error", () => $("picture").replaceChildren(element("p", { className: "none", text: "no preview" })));
  $("picture").replaceChildren(image);
}

function drawBoxes(characters, width, height) {
  const make = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const [place, { score, box: [x1, y1, x2, y2] }] of characters.entries()) {
    const box = make("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, rx: 1, class: tone(score), "data-place": place });
    box.addEventListener("mouseenter", () => mark(place, true));
    box.addEventListener("mouseleave", () => mark(place, false));
    svg.append(box);
  }
  return svg;
}

/** Marks a character in the picture and in the list, or no more. */
function mark(place, active) {
  for (const part of document.querySelectorAll(`rect[data-place="${place}"], .tile[data-place="${place}"]`)) {
    part.classList.toggle("active", active);
  }
}

function makeTile({ char, score, alternatives }, place) {
  const id = `alternatives-${place}`;
  const button = element(
    "button",
    { type: "button", className: `tile ${tone(score)}`, ariaLabel: `${char}, ${percent(score)} sure` },
    element("span", { className: "char", text: char }),
    element("span", { className: "share", text: percent(score) }),
  );
  button.dataset.place = place;
  button.style.setProperty("--share", score);
  button.setAttribute("aria-describedby", id);
  const tip = element("div", { id, className: "alternatives", role: "tooltip" });
  tip.append(element("p", { text: alternatives.length ? `Instead of ${char}` : "Nothing else is likely" }));
  if (alternatives.length) tip.append(element("dl", {}, ...alternatives.flatMap(makeAlternative)));
  const tile = element("li", {}, button, tip);
  for (const [name, active] of Object.entries({ mouseenter: true, focusin: true, mouseleave: false, focusout: false })) {
    tile.addEventListener(name, () => {
      mark(place, active);
      tile.classList.remove("dismissed");
    });
  }
  tile.addEventListener("keydown", (event) => tile.classList.toggle("dismissed", event.key === "Escape"));
  return tile;
}

function makeAlternative([char, share]) {
  const bar = element("dd", { className: tone(share) }, element("span", { text: percent(share) }));
  bar.style.setProperty("--share", share);
  return [element("dt", { text: char }), bar];
}

/** Turns the lists of alternatives inwards that would reach over the edge of the page. */
function keepInside() {
  const edge = document.documentElement.clientWidth - 8;
  for (const tip of document.querySelectorAll(".alternatives")) {
    const { left, right } = tip.getBoundingClientRect();
    tip.classList.toggle("left", left < 8);
    tip.classList.toggle("right", right > edge);
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText(chosen.record.text);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("text")); // a page that is not served securely may not write: the user may
    $("copy").textContent = "Selected";
  }
}

// ---------------------------------------------------------------- all pictures

function makeRow(item) {
  const image = element("img", { src: item.url, alt: "" });
  image.addEventListener("error", () => image.remove());
  const button = element("button", { type: "button", text: item.name });
  item.row = element("tr", {}, element("td", {}, image), element("td", {}, button), element("td"), element("td"));
  item.row.addEventListener("click", () => choose(item));
  button.addEventListener("focus", () => choose(item));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && item.row[step];
    if (!next) return;
    event.preventDefault();
    next.querySelector("button").focus();
  });
  return item.row;
}

function fillRow({ row, record, error }) {
  const [, , text, sure] = row.cells;
  text.className = `text ${error ? "error" : ""}`;
  text.textContent = error ?? record?.text ?? "…";
  sure.className = `number ${record ? tone(record.confidence) : ""}`;
  sure.textContent = record ? percent(record.confidence) : "";
}

function downloadCsv() {
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = items.map(({ name, record, error }) =>
    [name, record?.text ?? "", record ? record.confidence.toFixed(4) : "", error ?? ""].map(cell).join(","),
  );
  const blob = new Blob([["file,text,confidence,error", ...lines, ""].join("\n")], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(blob), download: "readings.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

listen();
listenToOptions();
listenToKey();
$("copy").addEventListener("click", copy);
$("csv").addEventListener("click", downloadCsv);
$("clear").addEventListener("click", clear);
window.addEventListener("resize", keepInside);
describeModel();
