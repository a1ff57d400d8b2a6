// The labelling page: one image after the other, typed with keys alone. What is typed goes into an outbox in the browser
// first and leaves it when the service has it on its disk, so that neither of the two can lose it.

import { $, element, percent, tone } from "./elements.js";

const OUTBOX = "label-outbox";
const ASIDE = "label-aside"; // answers about images that the service does not know: of a folder that it served before
const KEPT_PICTURES = 30;
const BUSY_POLL = 2000; // milliseconds between looks at how far things are, while something is going on
const IDLE_POLL = 10000;

const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

let person = localStorage.getItem("label-person");
let shown = null; // the image on the page
let present = null; // the image that waits while an earlier one, or one of a list, is shown
let ahead = null; // promise of the image after this one, fetched while somebody types
let trail = []; // ids of what this person answered, oldest first
let place = null; // where in it, while looking back
let list = null; // {name, rest}: a list that is being settled
let overview = null;
let sending = false;
let turning = true; // from one image to the next, until the first one is there
let refusal = ""; // why adapting could not be started
let polls;
const pictures = new Map(); // image files as they came: id to blob URL

// ---------------------------------------------------------------- the service

class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Asks the service; a refusal, or no answer at all (status 0), is thrown. */
async function call(path, { method = "GET", json, body } = {}) {
  const headers = {};
  const key = sessionStorage.getItem("key");
  if (key) headers.Authorization = `Bearer ${key}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`v1/label${path}`, { method, headers, body: json === undefined ? body : JSON.stringify(json) });
  } catch {
    throw new Refusal(0, "The service does not answer: is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) askForKey();
  const problem = await response.json().catch(() => null);
  throw new Refusal(response.status, problem?.detail ?? `The service answers with status ${response.status}.`);
}

const get = async (path) => (await call(path)).json();
const passes = ({ status }) => status === 0 || status === 401 || status === 429 || status >= 500;

/** Says what everything waits for, once: it is read out whenever it changes. */
function warn(message) {
  if ($("waiting").textContent !== message) $("waiting").textContent = message;
}

/** Nothing waits but for answers about another folder. */
function calm() {
  const { length } = kept(ASIDE);
  const answers = length === 1 ? "One answer about an image" : `${length} answers about images`;
  warn(length ? `${answers} of another folder: kept in this browser until that folder is served again.` : "");
}

/** Asks until there is an answer, or a refusal that stays. */
async function insist(ask) {
  for (;;) {
    try {
      const answer = await ask();
      if (!sending) calm();
      return answer;
    } catch (error) {
      if (!(error instanceof Refusal) || !passes(error)) throw error;
      if (!sending) warn(error.message);
      await sleep(1000);
    }
  }
}

function askForKey() {
  if (!$("key-form").hidden) return;
  $("key-form").hidden = false;
  $("key").focus();
}

// ---------------------------------------------------------------- answers out

const kept = (name) => JSON.parse(localStorage.getItem(name) ?? "[]");
const keep = (name, entries) => localStorage.setItem(name, JSON.stringify(entries));
const outbox = () => kept(OUTBOX);

function post(answer) {
  keep(OUTBOX, [...outbox(), { ...answer, key: crypto.getRandomValues(new Uint32Array(2)).join("-") }]);
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  for (let entry; (entry = outbox()[0]); ) {
    const { image, file, key, ...json } = entry;
    let answered = null;
    try {
      answered = await (await call(`/images/${image}/answers`, { method: "POST", json })).json();
    } catch (error) {
      if (passes(error)) {
        const count = outbox().length;
        warn(`${count === 1 ? "One answer waits" : `${count} answers wait`} in this browser. ${error.message}`);
        await sleep(1000);
        continue;
      }
      if (error.status === 404) keep(ASIDE, [...kept(ASIDE), entry]);
      else say(`“${json.text ?? "nobody can read it"}” for ${file} was refused: ${error.message}`);
    }
    keep(OUTBOX, outbox().filter((other) => other.key !== key));
    if (answered) count(answered.counts);
  }
  sending = false;
  calm();
}

// ---------------------------------------------------------------- images in

async function pictureOf(id) {
  if (pictures.has(id)) return pictures.get(id);
  const url = URL.createObjectURL(await (await call(`/images/${id}/file`)).blob());
  pictures.set(id, url);
  const [oldest] = pictures.keys();
  if (pictures.size > KEPT_PICTURES && oldest !== shown?.id) {
    URL.revokeObjectURL(pictures.get(oldest));
    pictures.delete(oldest);
  }
  return url;
}

async function fetchNext() {
  const atHand = [...outbox().map(({ image }) => image), shown?.id, present?.id].filter(Boolean).slice(-90);
  const query = new URLSearchParams([["person", person], ...atHand.map((id) => ["at_hand", id])]);
  const { item } = await insist(() => get(`/next?${query}`));
  if (item) await pictureOf(item.id).catch(() => null); // shown without, where it cannot be had
  return item;
}

/** Goes to the next image, and fetches the one after it. */
async function take() {
  const mine = ahead ?? fetchNext();
  ahead = null;
  show(await mine);
  if (shown) ahead = fetchNext();
}

async function open(id) {
  show(await insist(() => get(`/images/${id}`)), "You answered this one before.");
}

/** Turns to another image; keys pressed in the meantime do nothing. */
async function turn(step) {
  if (turning) return;
  turning = true;
  try {
    await step();
  } finally {
    turning = false;
  }
}

/** The same for what is chosen rather than typed: it waits for the turn that is under way. */
async function turnSoon(step) {
  while (turning) await sleep(20);
  await turn(step);
}

// ---------------------------------------------------------------- one image

const inCase = (text) => (overview?.case === "lower" ? text.toLowerCase() : overview?.case === "upper" ? text.toUpperCase() : text);
const mineOf = (item) => outbox().findLast(({ image }) => image === item.id) ?? item.votes.find((vote) => vote.person === person);

/** What the line holds at first: what this person said, or what the model reads. */
function suggestion(item) {
  const mine = mineOf(item);
  return inCase(mine ? (mine.text ?? "") : (item.guess?.text ?? ""));
}

function show(item, why = "") {
  shown = item;
  $("work").hidden = item === null;
  $("end").hidden = item !== null;
  if (item === null) return describeEnd();
  $("why").textContent = why;
  say("");
  $("text").value = suggestion(item);
  spell();
  drawVotes(item);
  focusLine();
  drawPicture(item);
}

function describeEnd() {
  if (!overview) return;
  const { images, typed, unreadable, disputed, broken } = overview.counts;
  const rest = images - typed - unreadable - disputed - broken;
  $("end-text").textContent = !images
    ? "There is no image in this folder yet: drop some here."
    : rest || disputed
      ? `Nothing is left for you. ${rest ? `${rest} images wait for another person. ` : ""}${disputed ? "What people disagree about can be settled below." : ""}`
      : "All images are typed. Thank you!";
  $("end-back").hidden = !trail.length;
}

async function drawPicture(item) {
  $("picture").classList.add("coming");
  const url = await pictureOf(item.id).catch(() => null);
  if (shown !== item) return;
  const none = () => $("picture").replaceChildren(element("p", { className: "none", text: `This browser cannot show ${item.file}: a PNG it could.` }));
  const image = element("img", { src: url ?? "", alt: `The image ${item.file}` });
  image.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    $("picture").style.width = `${Math.max(Math.min(4 * width, 34 * 16), width)}px`;
    $("picture").append(drawDoubts(doubts(), width, height));
    $("picture").classList.remove("coming");
  });
  image.addEventListener("error", none);
  $("picture").replaceChildren(image);
}

function drawDoubts(characters, width, height) {
  const make = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const boxes = characters.map(({ score, box: [x1, y1, x2, y2] }) =>
    make("rect", { x: x1, y: y1, width: x2 - x1, height: y2 - y1, rx: 1, class: tone(score) }),
  );
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(...boxes);
  return svg;
}

/** The doubtful characters of the guess that stand in the line still, each with its place in it. */
function doubts() {
  const line = Array.from($("text").value);
  return (shown?.guess?.characters ?? [])
    .map((character, index) => ({ ...character, index }))
    .filter(({ char, score, index }) => tone(score) !== "sure" && line[index] === inCase(char));
}

function kind(char) {
  if (/\p{Nd}/u.test(char)) return "digit";
  if (/\p{Lu}/u.test(char)) return "capital";
  if (/\p{Ll}/u.test(char)) return "small";
  return /\p{L}/u.test(char) ? "letter" : "sign";
}

/** Says of every character in the line what it is, and marks the doubtful ones. */
function spell() {
  const doubtful = new Map(doubts().map(({ index, score }) => [index, score]));
  const tiles = Array.from($("text").value).map((char, index) => {
    const score = doubtful.get(index);
    const tile = element(
      "li",
      { className: score === undefined ? "" : tone(score) },
      element("span", { className: "char", text: char }),
      element("span", { className: "kind", text: kind(char) }),
    );
    if (score !== undefined) tile.setAttribute("aria-label", `${char}, ${kind(char)}, doubtful: ${percent(score)} sure`);
    return tile;
  });
  $("spelled").replaceChildren(...tiles);
}

function drawVotes(item) {
  const said = new Map();
  for (const { text, person: who } of item.votes) said.set(text, [...(said.get(text) ?? []), who === person ? "you" : who]);
  if (item.doubt) said.set(item.doubt.read, [...(said.get(item.doubt.read) ?? []), `the model, ${percent(item.doubt.confidence)} sure`]);
  const buttons = Array.from(said, ([text, people]) => {
    const button = element(
      "button",
      { type: "button" },
      element("span", { className: "said", text: text ?? "nobody can read it" }),
      element("span", { className: "who", text: people.join(", ") }),
    );
    button.addEventListener("click", () => {
      $("text").value = text ?? "";
      spell();
      if (text === null) accept(null);
      else $("text").focus();
    });
    return button;
  });
  $("votes").hidden = list === null;
  $("votes").replaceChildren(...buttons);
}

/** Puts the cursor to work: on the first doubtful character, which typing replaces, else at the end. */
function focusLine() {
  const line = $("text");
  line.focus();
  line.setSelectionRange(line.value.length, line.value.length);
  if (!mineOf(shown)) selectDoubt(-1);
}

const offset = (index) => Array.from($("text").value).slice(0, index).join("").length;

/** Selects the first doubtful character after a place; after the last one the first again. */
function selectDoubt(after) {
  const found = doubts();
  const next = found.find(({ index }) => offset(index) > after) ?? found[0];
  if (next) $("text").setSelectionRange(offset(next.index), offset(next.index + 1));
}

/** Changes the case of what is selected, or of the character before the cursor. */
function changeCase() {
  const line = $("text");
  let { selectionStart: start, selectionEnd: end } = line;
  if (start === end) start = offset(Math.max(Array.from(line.value.slice(0, end)).length - 1, 0));
  const part = line.value.slice(start, end);
  const changed = part === part.toLowerCase() ? part.toUpperCase() : part.toLowerCase();
  if (changed.length !== part.length) return;
  line.setRangeText(changed, start, end, "select");
  spell();
}

function say(message) {
  $("message").textContent = message;
}

// ---------------------------------------------------------------- what keys do

function accept(text) {
  if (!shown || turning) return;
  if (text !== null && !text.trim()) return say("Nothing is typed. If nobody can read it: Ctrl and Enter, or the button.");
  if (text !== null && /\s/.test(text.trim())) return say("A string has no blank in it.");
  const settles = list !== null || shown.votes.some((vote) => vote.settles);
  post({ image: shown.id, file: shown.file, person, text: text?.trim() ?? null, settles });
  if (place === null) trail = [...trail.filter((id) => id !== shown.id), shown.id];
  turn(goOn);
}

/** To what comes after the image shown. */
async function goOn() {
  if (list !== null) return nextOfList();
  if (place === null) return take();
  place += 1;
  if (place < trail.length) return open(trail[place]);
  place = null;
  return comeBack();
}

/** To the image that waited. */
async function comeBack() {
  const waiting = present;
  present = null;
  list = null;
  if (waiting) show(waiting);
  else await take();
}

function leavePresent() {
  if (place === null && list === null) present = shown;
}

async function goBack() {
  if (list !== null) return comeBack();
  const target = (place ?? trail.length) - 1;
  if (target < 0) return say("There is nothing before this.");
  leavePresent();
  place = target;
  return open(trail[place]);
}

async function putOff() {
  if (shown && list === null && place === null) {
    await insist(() => call(`/images/${shown.id}/later?${new URLSearchParams({ person })}`, { method: "POST" }));
  }
  if (shown) await goOn();
}

const back = () => turn(goBack);
const later = () => turn(putOff);

function onKey(event) {
  if (event.isComposing || (event.target !== $("text") && event.target !== document.body && event.target.tagName !== "BUTTON")) return;
  const inLine = event.target === $("text");
  const action = {
    PageUp: back,
    PageDown: later,
    ...(inLine && {
      ArrowDown: () => selectDoubt($("text").selectionStart),
      ArrowUp: changeCase,
      Escape: () => {
        $("text").value = $("text").value ? "" : suggestion(shown);
        spell();
        if ($("text").value) selectDoubt(-1);
      },
      Enter: event.ctrlKey || event.metaKey ? () => accept(null) : undefined,
    }),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function listenToWork() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    accept($("text").value);
  });
  $("text").addEventListener("input", () => {
    const { value, selectionStart: start, selectionEnd: end } = $("text");
    if (inCase(value) !== value && inCase(value).length === value.length) {
      $("text").value = inCase(value);
      $("text").setSelectionRange(start, end);
    }
    say("");
    spell();
  });
  document.addEventListener("keydown", onKey);
  $("back").addEventListener("click", back);
  $("end-back").addEventListener("click", back);
  $("later").addEventListener("click", later);
  $("unreadable").addEventListener("click", () => accept(null));
}

// ---------------------------------------------------------------- lists to be settled

const REASONS = {
  disputed: () => "People disagree. What you accept now decides.",
  doubtful: ({ doubt }) => `“${doubt.text}” was typed, the adapted model reads “${doubt.read}”. What you accept now decides.`,
};

const listed = async (name) => (name === "disputed" ? get("/disputed") : (await get("/doubtful")).map(({ id, doubt }) => ({ id, doubt, file: doubt.file })));

async function fillList(name) {
  const rows = (await listed(name)).map((row, index, all) => {
    const said = row.doubt ? [row.doubt.text, row.doubt.read] : [...new Set(row.votes.map(({ text }) => text ?? "nobody can read it"))];
    const button = element("button", { type: "button" }, ...said.map((text) => element("span", { className: "said", text })), element("span", { className: "quiet", text: row.file }));
    button.addEventListener("click", () => {
      turnSoon(async () => {
        leavePresent();
        place = null;
        list = { name, rest: [...all.slice(index), ...all.slice(0, index)] };
        await nextOfList();
      });
    });
    return element("li", {}, button);
  });
  $(`${name}-list`).replaceChildren(...rows);
}

async function nextOfList() {
  const row = list.rest.shift();
  if (!row) return comeBack();
  const item = { ...(await insist(() => get(`/images/${row.id}`))), doubt: row.doubt };
  show(item, REASONS[list.name](item));
  $("work").scrollIntoView({ block: "nearest" });
}

async function fillBroken() {
  const rows = (await get("/broken")).map(({ file, error }) => element("li", { className: "plain", text: `${file}: ${error}` }));
  $("broken-list").replaceChildren(...rows);
}

// ---------------------------------------------------------------- how far things are

function count(counts) {
  if (!overview) return;
  const before = overview.counts;
  overview.counts = counts;
  const { images, typed, unreadable, disputed, broken, guessed } = counts;
  $("share").max = Math.max(images, 1);
  $("share").value = typed + unreadable;
  const parts = [`${typed} of ${images} typed`];
  if (unreadable) parts.push(`${unreadable} that nobody can read`);
  if (disputed) parts.push(`${disputed} disputed`);
  if (guessed < images) parts.push(`${guessed} read by the model so far`);
  $("counts").textContent = parts.join(", ");
  $("disputed-count").textContent = disputed === 1 ? "one image" : `${disputed} images`;
  $("disputed").hidden = !disputed;
  $("broken-count").textContent = broken === 1 ? "One file" : `${broken} files`;
  $("broken").hidden = !broken;
  if (before.disputed !== disputed && $("disputed").open) fillList("disputed").catch(() => null);
  if (!shown) describeEnd();
}

async function refresh() {
  clearTimeout(polls);
  try {
    const fresh = await get("");
    const before = overview ?? fresh;
    overview = { ...fresh, counts: before.counts };
    count(fresh.counts);
    describe(before);
    if (!shown) turn(take); // there may be something new
  } catch (error) {
    if (!(error instanceof Refusal)) throw error; // that it is away is said where somebody waits for it
  }
  const busy = overview && (overview.adapting.state === "running" || overview.counts.guessed < overview.counts.images);
  polls = setTimeout(refresh, busy ? BUSY_POLL : IDLE_POLL);
}

function describe(before) {
  for (const id of ["progress", "adapting", "folder-bar"]) $(id).hidden = false;
  $("folder").textContent = overview.folder;
  $("case").value = overview.case;
  $("doubtful-count").textContent = overview.doubts === 1 ? "one string" : `${overview.doubts} strings`;
  $("doubtful").hidden = !overview.doubts;
  if (before.doubts !== overview.doubts && $("doubtful").open) fillList("doubtful").catch(() => null);
  describeRun(overview.adapting);
}

function describeRun({ state, step, done, result, error, run }) {
  const running = state === "running";
  $("adapt").disabled = running;
  $("stop").hidden = !running;
  $("run").hidden = !running && state !== "left";
  $("done").value = done;
  $("step").textContent =
    state === "left" ? `The service was stopped while this ran; it may be running still, in ${run}.` : `${percent(done)}: ${step || "starting"}`;
  $("failed").textContent = state === "failed" ? `Adapting failed: ${error}` : refusal;
  $("result").hidden = state !== "done";
  if (state !== "done") return;
  const [low, high] = result.interval_95 ?? [];
  $("accuracy").textContent = `About ${percent(result.accuracy)} of such images will be read right${low === undefined ? "" : ` (${percent(low)} to ${percent(high)})`}.`;
  $("advice").textContent = result.advice ?? "";
  $("command").textContent = `python infer.py --weights ${result.weights} IMAGES`;
}

async function act(what, done) {
  try {
    $("status").textContent = done(await what());
  } catch (error) {
    $("status").textContent = error.message;
  }
  refresh();
}

async function adapt() {
  refusal = "";
  $("adapt").disabled = true;
  await drained();
  await call("/adapt", { method: "POST" }).catch((error) => (refusal = error.message));
  await refresh();
}

/** Waits until the service has everything. */
async function drained() {
  while (outbox().length) await sleep(50);
}

async function download() {
  await drained();
  const url = URL.createObjectURL(await (await call("/labels.csv")).blob());
  element("a", { href: url, download: "labels.csv" }).click();
  URL.revokeObjectURL(url);
}

async function add(files) {
  const added = [];
  for (const file of files) {
    const form = new FormData();
    form.append("file", file);
    added.push(...(await insist(async () => (await call("/images", { method: "POST", body: form })).json())));
    $("status").textContent = `${added.length} of ${files.length} sent`;
  }
  return added;
}

function describeAdded(added) {
  const refused = added.filter(({ error }) => error);
  const taken = added.length - refused.length;
  return `${taken} added${refused.length ? `, ${refused.length} refused: ${refused[0].file} ${refused[0].error}` : ""}`;
}

function listenToFolder() {
  $("adapt").addEventListener("click", adapt);
  $("stop").addEventListener("click", () => act(() => call("/adapt", { method: "DELETE" }), () => "Stopped"));
  $("case").addEventListener("change", () => act(() => call("/choice", { method: "PUT", json: { case: $("case").value } }), () => ""));
  $("export").addEventListener("click", () =>
    act(
      async () => {
        await drained();
        return (await call("/export", { method: "POST" })).json();
      },
      ({ rows }) => `${rows} rows written`,
    ),
  );
  $("download").addEventListener("click", () => act(download, () => ""));
  const send = (files) => files.length && act(() => add(files), describeAdded);
  $("files").addEventListener("change", () => {
    send([...$("files").files]);
    $("files").value = "";
  });
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    send([...event.dataTransfer.files]);
  });
  for (const name of ["disputed", "doubtful"]) $(name).addEventListener("toggle", () => $(name).open && fillList(name));
  $("broken").addEventListener("toggle", () => $("broken").open && fillBroken());
}

// ---------------------------------------------------------------- who is there

async function begin() {
  $("name-form").hidden = true;
  $("rename").hidden = false;
  $("rename").textContent = person;
  $("rename").ariaLabel = `You are ${person}: change the name`;
  trail = (await insist(() => get(`/answered?${new URLSearchParams({ person })}`))).reverse();
  await take();
  turning = false;
}

function askForName() {
  $("name-form").hidden = false;
  $("name").value = person ?? "";
  $("name").focus();
}

function listenToPerson() {
  $("name-form").addEventListener("submit", (event) => {
    event.preventDefault();
    person = $("name").value.trim();
    if (!person) return;
    localStorage.setItem("label-person", person);
    [turning, ahead, present, place, list] = [true, null, null, null, null];
    begin();
  });
  $("rename").addEventListener("click", askForName);
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("key", $("key").value);
    $("key-form").hidden = true;
    refresh();
  });
}

listenToWork();
listenToFolder();
listenToPerson();
await refresh();
keep(OUTBOX, [...outbox(), ...kept(ASIDE)]);
keep(ASIDE, []);
send();
if (person) begin();
else askForName();
