/** The page: takes pictures and options, reads, and hands out the answers. */

import { Card, copy, percent } from "./card.js";
import { openNetwork } from "./network.js";
import { Reader } from "./reader.js";

const STRINGS = 4; // that an answer lists
const $ = (id) => document.getElementById(id);

const networks = new Map(); // those opened so far, by the names of their weights
let network = null;
let reader = null;
let working = false;
const cards = [];

// --- pictures in

function add(files) {
  for (const file of files) {
    const card = new Card(file, remove);
    cards.push(card);
    $("cards").append(card.element);
  }
  refresh();
  work();
}

function remove(card) {
  const place = cards.indexOf(card);
  cards.splice(place, 1);
  card.element.remove();
  refresh();
  // The focus would be lost with the button that it was on.
  (cards[Math.min(place, cards.length - 1)]?.find(".remove") ?? $("files")).focus();
}

function refresh() {
  $("answers").hidden = cards.length === 0;
  $("count").textContent = cards.length === 1 ? "1 picture" : `${cards.length} pictures`;
}

async function addSample(name) {
  const response = await fetch(`samples/${name}`);
  add([new File([await response.blob()], name)]);
}

function showSamples() {
  for (const name of RELEASE.samples) {
    const picture = Object.assign(new Image(), { src: `samples/${name}`, alt: `Sample ${name}` });
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(picture);
    button.addEventListener("click", () => addSample(name));
    $("samples").append(button);
  }
}

$("files").addEventListener("change", ({ target }) => {
  add(target.files);
  target.value = ""; // so that the same file can be chosen again
});

addEventListener("paste", (event) => {
  if (event.clipboardData.files.length === 0) return;
  event.preventDefault();
  add(event.clipboardData.files);
});

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});

addEventListener("dragleave", ({ relatedTarget }) => {
  if (relatedTarget === null) $("drop").classList.remove("over");
});

addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add(event.dataTransfer.files);
});

// --- reading

/** Reads every picture that the present reader has not read yet, one after the other. */
async function work() {
  if (working || !reader) return;
  working = true;
  try {
    for (let card; (card = cards.find(({ readBy }) => readBy !== reader)); ) {
      card.readBy = reader;
      await card.read(reader);
      $("announcement").textContent = summary(card);
      await new Promise((resolve) => setTimeout(resolve)); // lets the page draw and answer between two pictures
    }
  } finally {
    working = false;
  }
}

function summary({ file, error, reading }) {
  if (error !== null) return `${file.name} ${error}`;
  return `${file.name}: ${[...reading.text].join(" ") || "no character found"}, ${percent(reading.confidence)} sure`;
}

// --- options

/** Takes over the options, or says what is wrong with them and keeps to the last ones. */
function applyOptions() {
  const own = $("charset").value === "own";
  $("own-field").hidden = !own;
  if (!network) return;
  const charset = (own ? $("own").value : $("charset").value) || null;
  const [length, prefer, pattern] = ["length", "prefer", "pattern"].map((id) => $(id).value.trim() || null);
  const options = { charset, length, case: $("case").value, prefer, pattern, topK: STRINGS };
  try {
    reader = new Reader(network.detect, network.settings, options);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    $("complaint").textContent = sentence(error.message);
    return;
  }
  $("complaint").textContent = "";
  work();
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

/** Opens the weights chosen, once; if they cannot be had, the page goes on with those before. */
async function changeWeights() {
  const weights = $("weights").value;
  $("weights").disabled = true;
  $("progress").hidden = networks.has(weights);
  $("status").textContent = `Loading the model “${weights}” …`;
  try {
    if (!networks.has(weights)) networks.set(weights, await openNetwork(weights, showProgress));
    network = networks.get(weights);
    $("status").textContent = `Ready: model “${weights}”.`;
    applyOptions();
  } catch (error) {
    $("weights").value = [...networks].find(([, opened]) => opened === network)?.[0] ?? weights;
    $("status").textContent = `The model “${weights}” could not be loaded: ${error.message}. Try again later.`;
    throw error;
  } finally {
    $("progress").hidden = true;
    $("weights").disabled = false;
  }
}

function showProgress(received, total) {
  Object.assign($("progress"), { max: total, value: received });
}

$("options").addEventListener("submit", (event) => event.preventDefault());
$("options").addEventListener("input", ({ target }) => {
  if (target === $("weights")) changeWeights();
  else applyOptions();
});

// --- answers out

$("copy").addEventListener("click", ({ currentTarget }) => {
  copy(cards.map(({ reading }) => reading?.text ?? "").join("\n"), currentTarget);
});

$("save").addEventListener("click", () => {
  const rows = cards.map(({ file, error, reading }) => [
    file.name,
    reading?.text ?? "",
    reading ? reading.confidence.toFixed(4) : "",
    error ?? "",
  ]);
  const lines = [["file", "text", "confidence", "error"], ...rows].map((row) => row.map(quote).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n"), "\n"], { type: "text/csv" }));
  link.download = "readings.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});

function quote(cell) {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

$("clear").addEventListener("click", () => {
  cards.length = 0;
  $("cards").replaceChildren();
  refresh();
  $("files").focus();
});

// --- start

async function keepForOffline() {
  // The script that lists the files must not come from a cache either: it is how a new release is noticed.
  await navigator.serviceWorker.register("service-worker.js", { updateViaCache: "none" });
  await navigator.serviceWorker.ready;
  $("status").textContent += " Works offline from now on.";
}

showSamples();
$("weights").append(...RELEASE.weights.map((name) => new Option(name)));
$("copy").hidden = !navigator.clipboard;
await changeWeights();
if (navigator.serviceWorker) await keepForOffline();
