/**
 * Reads captchas from what the network sees: the page's mirror of the Python package, function by function.
 *
 * `detector/charset.py`, `images.py`, `reading.py` and `reader.py` hold the explanations; the sections here bear their
 * names, and `tests/browser` holds both to the same answers. Plain JavaScript that needs `pattern.js` and nothing else: it
 * runs wherever modules do.
 *
 * @typedef {{data: Uint8Array | Uint8ClampedArray, height: number, width: number}} Picture RGB, [height, width, 3]
 * @typedef {{boxes: Float32Array, scores: Float32Array, probs: Float32Array}} Detections [N, 4] xyxy, [N], [N, C]
 * @typedef {[number, number, number, number]} Box x1, y1, x2, y2
 * @typedef {{char: string, score: number, box: Box, alternatives: [string, number][]}} Character
 * @typedef {{text: string, confidence: number, characters: Character[], readings: [string, number][]}} Reading
 */

import { automaton, check } from "./pattern.js";

// --- charset.py

const DIGITS = "0123456789";
const LOWER = "abcdefghijklmnopqrstuvwxyz";
const UPPER = LOWER.toUpperCase();

export const NAMED_CHARSETS = new Map([
  ["digits", DIGITS],
  ["lower", LOWER],
  ["upper", UPPER],
  ["letters", UPPER + LOWER],
  ["alnum-lower", DIGITS + LOWER],
  ["alnum-upper", DIGITS + UPPER],
  ["alnum", DIGITS + UPPER + LOWER],
]);

/** Characters that no reader can tell apart by their shape. */
const LOOKALIKES = ["0Oo", "1lI|", "cC", "sS", "vV", "wW", "xX", "zZ"];

function resolveCharset(nameOrLiteral) {
  return NAMED_CHARSETS.get(nameOrLiteral) ?? nameOrLiteral;
}

/**
 * Marks the characters that may occur.
 * @param {string[]} charset The characters of the network's classes, in order.
 * @param {string} allowed A named charset or the characters themselves; those that the network lacks are ignored.
 * @returns {boolean[]} One per class.
 */
export function allowedMask(charset, allowed) {
  const characters = new Set(resolveCharset(allowed));
  const mask = charset.map((char) => characters.has(char));
  check(mask.includes(true), `no character of “${allowed}” is among those the model knows: ${charset.join("")}`);
  return mask;
}

// --- images.py

/** Larger images are refused: no captcha comes near. */
export const MAX_PIXELS = 16_000_000;

/**
 * Lays RGBA pixels onto white, or onto black if what is visible is light and most of the image is transparent.
 * @param {Picture} image With four bytes a pixel, not premultiplied.
 * @returns {Picture} With three.
 */
export function flatten({ data, height, width }) {
  const count = height * width;
  let [transparent, alphas, ink] = [0, 0, 0];
  for (let i = 0; i < 4 * count; i += 4) {
    const alpha = data[i + 3];
    transparent += alpha < 128;
    alphas += alpha;
    ink += alpha * ((data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16); // Pillow's grey
  }
  const paper = transparent > 0.5 * count && ink > 127 * alphas ? 0 : 255;
  const flat = new Uint8Array(3 * count);
  for (let from = 0, to = 0; to < flat.length; from += 4) {
    const alpha = data[from + 3];
    for (let band = 0; band < 3; band++) {
      // Pillow's alpha_composite, in its fixed point, on an opaque ground
      const blend = (data[from + band] * alpha + paper * (255 - alpha) + 128) << 7;
      flat[to++] = ((blend >> 8) + blend) >> 15;
    }
  }
  return { data: flat, height, width };
}

/** The width at which an image enters the network, a multiple of `multiple` and at most `most`. */
export function networkWidth([imageHeight, imageWidth], height, multiple, most) {
  const multiples = Math.ceil((imageWidth * height) / (imageHeight * multiple));
  return multiple * Math.min(multiples, Math.max(Math.floor(most / multiple), 1));
}

/**
 * Resizes an RGB image: bilinear, antialiased where it shrinks, to the very pixels of Pillow 13.
 * @param {Picture} image
 * @param {number} height
 * @param {number} width
 * @returns {Picture}
 */
export function resize(image, height, width) {
  const lost = [image.height - height, image.width - width];
  if (lost[0] > Math.max(2 * lost[1], 0)) { // Pillow's order; each pass rounds
    const columns = resample(image.data, 1, image.height, 3 * image.width, height); // [height, W, 3]
    return { data: resample(columns, height, image.width, 3, width), height, width };
  }
  const rows = resample(image.data, image.height, image.width, 3, width); // [H, width, 3]
  return { data: resample(rows, 1, image.height, 3 * width, height), height, width };
}

const PRECISION_BITS = 22; // of the weights in Pillow's Resample.c

/** Resizes the middle axis of bytes shaped [outer, size, inner]. */
function resample(data, outer, size, inner, newSize) {
  if (newSize === size) return data;
  const kernels = triangleKernels(size, newSize);
  const out = new Uint8Array(outer * newSize * inner);
  let place = 0;
  for (let line = 0; line < outer; line++) {
    for (const { start, weights } of kernels) {
      const first = (line * size + start) * inner;
      for (let i = first; i < first + inner; i++) {
        let sum = 1 << (PRECISION_BITS - 1);
        for (let k = 0, from = i; k < weights.length; k++, from += inner) sum += data[from] * weights[k];
        out[place++] = sum >> PRECISION_BITS;
      }
    }
  }
  return out;
}

/** For each new place, where its weights start in the old ones, and the weights in fixed point. */
function triangleKernels(size, newSize) {
  const scale = size / newSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: newSize }, (_, place) => {
    const center = (place + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), size);
    const weights = [];
    for (let x = start; x < end; x++) weights.push(Math.max(1 - Math.abs((x - center + 0.5) * (1 / support)), 0));
    const total = sum(weights);
    return { start, weights: Int32Array.from(weights, (weight) => 0.5 + (weight / total) * (1 << PRECISION_BITS)) };
  });
}

/** Carries boxes [N, 4] from the network's input back to the image, clipped to it. */
export function boxesToImage(boxes, [networkHeight, networkWidth], [imageHeight, imageWidth]) {
  const limits = [imageWidth, imageHeight];
  const scale = [Math.fround(imageWidth / networkWidth), Math.fround(imageHeight / networkHeight)];
  return boxes.map((value, i) => Math.min(Math.max(value * scale[i % 2], 0), limits[i % 2]));
}

// --- looks.py

const ZOOM_MARGIN = 1; // heights of a character
const ZOOM_HEIGHTS = [32, 96];

/**
 * What a look sees of a picture; `look` is [height, stretch, zooms].
 * @param {Box[]} found The characters known so far.
 * @returns {{region: Box, size: [number, number]} | null} null where there is nothing to zoom in on.
 */
export function viewOf([height, stretch = 1, zooms = false], [imageHeight, imageWidth], found, settings) {
  const { width_multiple: multiple, max_width: most } = settings;
  const sized = ([x1, y1, x2, y2], newHeight) => {
    const stretched = [y2 - y1, Math.max(roundHalfToEven((x2 - x1) * stretch), 1)];
    return { region: [x1, y1, x2, y2], size: [newHeight, networkWidth(stretched, newHeight, multiple, most)] };
  };
  if (!zooms) return sized([0, 0, imageWidth, imageHeight], height);
  if (found.length === 0) return null;
  const typical = Math.max(median(found.map(([, y1, , y2]) => Math.fround(y2 - y1))), 1);
  const margin = ZOOM_MARGIN * typical;
  const low = (side) => Math.max(Math.floor(Math.min(...found.map((box) => box[side])) - margin), 0);
  const high = (side, limit) => Math.min(Math.ceil(Math.max(...found.map((box) => box[side])) + margin), limit);
  const region = [low(0), low(1), high(2, imageWidth), high(3, imageHeight)];
  const steps = Math.floor(((region[3] - region[1]) * height) / typical / multiple + 0.5);
  return sized(region, Math.min(Math.max(multiple * steps, ZOOM_HEIGHTS[0]), ZOOM_HEIGHTS[1]));
}

/** A part of a picture. */
function crop({ data, width }, [x1, y1, x2, y2]) {
  const part = new Uint8Array(3 * (x2 - x1) * (y2 - y1));
  for (let y = y1; y < y2; y++) {
    part.set(data.subarray(3 * (y * width + x1), 3 * (y * width + x2)), 3 * (y - y1) * (x2 - x1));
  }
  return { data: part, height: y2 - y1, width: x2 - x1 };
}

// --- reading.py

const MIN_SCORE = 0.05;
export const STRINGS_PER_LOOK = 5;
const MIN_ALTERNATIVE = 0.01;
const MAX_ALTERNATIVES = 5;
const CERTAIN = 1 - 1e-6;

/** How detections are read; see `ReadingOptions` in Python. */
export function readingOptions({
  scoreThresh = 0.4,
  overlapThresh = 0.65,
  allowed = null,
  case: written = "keep",
  prefer = null,
  pattern = null,
  minLength = 0,
  maxLength = Infinity,
  topK = 1,
} = {}) {
  check(0 < scoreThresh && scoreThresh < 1, `scoreThresh must be between 0 and 1, not ${scoreThresh}`);
  check(0 < overlapThresh && overlapThresh <= 1, `overlapThresh must be above 0, at most 1, not ${overlapThresh}`);
  check(["keep", "lower", "upper"].includes(written), `case must be keep, lower or upper, not ${written}`);
  check(0 <= minLength && minLength <= maxLength, `need 0 <= minLength <= maxLength, not ${minLength}..${maxLength}`);
  check(topK >= 1, `topK must be at least 1, not ${topK}`);
  return { scoreThresh, overlapThresh, allowed, case: written, prefer, pattern, minLength, maxLength, topK };
}

/**
 * Reads a string from the characters detected in one image.
 * @param {Detections} detections
 * @param {Constraint} constraint What the options allow of the network's characters.
 * @param {ReturnType<typeof readingOptions>} options
 * @returns {Reading}
 */
export function read(detections, { columns, names, allowed }, options) {
  const { scores, probs } = detections;
  check(probs.length === scores.length * columns.length, `the detections do not fit ${columns.length} characters`);
  const rows = candidates(detections, options, allowed.shortest);
  const presence = rows.map((row) => presenceOf(scores[row], options.scoreThresh));
  const added = rows.map((row) => addUp(probs.subarray(row * columns.length), columns, names));
  let spellings = mostProbableStrings(presence, added, names, allowed, options.topK);
  if (spellings.length === 0) { // what is there is worth showing all the same
    const everything = automaton(names, null, rows.length, rows.length);
    spellings = mostProbableStrings(presence, added, names, everything, 1);
    spellings = [{ ...spellings[0], prob: 0 }];
  }
  const [{ text, prob, picks }] = spellings;
  const characters = picks.map((pick) => character(pick, presence[pick.row], boxOf(detections, rows[pick.row]), names));
  return { text, confidence: prob, characters, readings: spellings.map((spelling) => [spelling.text, spelling.prob]) };
}

/**
 * What the options allow of a network's characters.
 * @typedef {{names: string[], columns: number[], allowed: import("./pattern.js").Automaton}} Constraint The characters
 *   that an answer is written in; for each of the network's, the place of the one that its probability counts for, or
 *   -1; and which strings are allowed.
 * @param {string[]} charset The characters of the network's classes, in order.
 * @param {ReturnType<typeof readingOptions>} options
 * @returns {Constraint}
 * @throws {RangeError} if no string is.
 */
export function constraint(charset, options) {
  const { names, columns } = writtenIn(charset, options);
  return { names, columns, allowed: automaton(names, options.pattern, options.minLength, options.maxLength) };
}

/**
 * Makes one reading of several looks at the same image.
 * @param {Reading[]} readings One per look.
 * @param {number} count How many strings the answer lists.
 * @returns {Reading}
 */
export function agree(readings, count) {
  const probs = meanProbs(readings, STRINGS_PER_LOOK);
  const listed = meanProbs(readings, Math.max(count, STRINGS_PER_LOOK));
  const surest = readings.reduce((best, reading) => {
    const lead = probs.get(reading.text) - probs.get(best.text) || reading.confidence - best.confidence;
    return lead > 0 ? reading : best;
  });
  const others = mostProbable([...listed], count).filter(([text]) => text !== surest.text);
  const confidence = Math.min(probs.get(surest.text), 1);
  const ranked = [[surest.text, confidence], ...others.slice(0, count - 1)];
  return { text: surest.text, confidence, characters: surest.characters, readings: ranked };
}

function meanProbs(readings, count) {
  const probs = new Map(); // an object would list strings of digits first
  for (const reading of readings) {
    for (const [text, prob] of reading.readings.slice(0, count)) {
      probs.set(text, (probs.get(text) ?? 0) + prob / readings.length);
    }
  }
  return probs;
}

function mostProbable(probs, count) {
  return probs.sort((a, b) => b[1] - a[1]).slice(0, count);
}

/**
 * Turns the confidence into the probability that the string is right.
 * @param {Reading} reading
 * @param {number} slope
 * @param {number} offset
 * @returns {Reading}
 */
export function calibrate(reading, slope, offset) {
  const prob = Math.min(Math.max(reading.confidence, 1 - CERTAIN), CERTAIN);
  const odds = slope * Math.log(prob / (1 - prob)) + offset;
  const confidence = reading.confidence === 0 ? 0 : 0.5 * (1 + Math.tanh(0.5 * odds));
  const rest = (1 - confidence) / (1 - prob);
  const others = reading.readings.slice(1).map(([text, other]) => [text, Math.min(other * rest, confidence)]);
  return { ...reading, confidence, readings: [[reading.text, confidence], ...others] };
}

/**
 * The most probable strings that an automaton accepts, exactly, best first.
 * @typedef {{row: number, label: number, probs: number[]}} Pick A candidate that is read as a character: its row, the
 *   character's column, and the candidate's class distribution at this place of the string.
 * @typedef {{text: string, prob: number, picks: Pick[]}} Spelling
 * @param {number[]} presence N probabilities that a candidate, from left to right, is a character.
 * @param {number[][]} probs [N, C] Which one it then is.
 * @param {string[]} names The characters of the C columns.
 * @param {import("./pattern.js").Automaton} allowed Which strings are allowed.
 * @param {number} count How many strings to find.
 * @returns {Spelling[]}
 */
export function mostProbableStrings(presence, probs, names, allowed, count) {
  const moves = movesOf(probs, allowed, count);
  let beams = new Map([[0, [{ text: "", prob: 1, picks: [] }]]]);
  presence.forEach((present, row) => {
    const grown = new Map();
    for (const [state, beam] of beams) {
      for (const { text, prob, picks } of beam) {
        keepBest(grown, state, { text, prob: prob * (1 - present), picks });
        for (const { pick, chance, following } of moves[state][row]) {
          const longer = { text: text + names[pick.label], prob: prob * present * chance, picks: [...picks, pick] };
          keepBest(grown, following, longer);
        }
      }
    }
    beams = new Map([...grown].map(([state, beam]) => [state, best([...beam.values()], count)]));
  });
  return best([...beams].flatMap(([state, beam]) => (allowed.states[state].accepts ? beam : [])), count);
}

/** For each state and candidate: its `count` most probable characters, for each state that may follow. */
function movesOf(probs, allowed, count) {
  const shared = new Map(); // many states are alike
  return allowed.states.map((state) => {
    const branches = state.branches.map(([labels, following]) => {
      const key = `${state.labels} ${labels}`;
      if (!shared.has(key)) shared.set(key, picksOf(given(probs, state.labels), labels, count));
      return [shared.get(key), following];
    });
    return probs.map((_, row) =>
      branches.flatMap(([choices, following]) => choices[row].map((choice) => ({ ...choice, following }))),
    );
  });
}

/** The `count` most probable of some labels for each row of [N, C], with their probabilities. */
function picksOf(distributions, labels, count) {
  return distributions.map((probs, row) =>
    argsort(labels.map((label) => probs[label]))
      .slice(0, count)
      .map((place) => ({ pick: { row, label: labels[place], probs }, chance: probs[labels[place]] }))
      .filter(({ chance }) => chance > 0),
  );
}

/** Class distributions [N, C] given that only some labels occur; a row without any mass there is uniform. */
function given(probs, labels) {
  return probs.map((row) => {
    const masked = row.map(() => 0);
    for (const label of labels) masked[label] = row[label];
    const mass = sum(masked);
    if (mass > 0) return masked.map((prob) => prob / mass);
    for (const label of labels) masked[label] = 1 / labels.length;
    return masked;
  });
}

function keepBest(beams, state, spelling) {
  if (!beams.has(state)) beams.set(state, new Map());
  const beam = beams.get(state);
  if (!(beam.get(spelling.text)?.prob >= spelling.prob)) beam.set(spelling.text, spelling);
}

function best(spellings, count) {
  return spellings.sort((a, b) => b.prob - a.prob).slice(0, count);
}

/** What may be characters, from left to right: rows of the detections. */
function candidates(detections, options, atLeast) {
  let rows = distinctRows(detections, options.overlapThresh, Math.min(MIN_SCORE, options.scoreThresh / 2));
  if (rows.length < atLeast) rows = distinctRows(detections, options.overlapThresh, 0).slice(0, atLeast);
  const middles = rows.map((row) => boxOf(detections, row)).map(([x1, , x2]) => x1 + x2);
  return argsort(middles.map((middle) => -middle)).map((place) => rows[place]);
}

function presenceOf(score, thresh) {
  const [there, absent] = [score * (1 - thresh), (1 - score) * thresh];
  return Math.min(Math.max(there / (there + absent), 1 - CERTAIN), CERTAIN);
}

/** Picks one detection per character above `minScore`, whatever its class, best first. */
function distinctRows(detections, overlapThresh, minScore) {
  const { scores } = detections;
  const rows = [];
  for (const row of argsort(scores)) {
    if (scores[row] <= Math.fround(minScore)) break; // NumPy compares in the scores' own precision
    const box = boxOf(detections, row);
    if (rows.every((other) => overlap(box, boxOf(detections, other)) <= overlapThresh)) rows.push(row);
  }
  return rows;
}

function boxOf({ boxes }, row) {
  return [...boxes.subarray(4 * row, 4 * row + 4)];
}

/** Intersection over the area of the smaller box. */
function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  return (width * height) / Math.min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]));
}

/** The characters that an answer is written in, and which of them each of the network's counts for. */
function writtenIn(charset, { allowed, case: written, prefer }) {
  const occurs = allowed === null ? charset.map(() => true) : allowedMask(charset, allowed);
  const instead = lookalikes([...resolveCharset(prefer ?? "")].map((char) => inCase(char, written)));
  const forms = charset.map((char) => inCase(char, written)).map((char) => instead.get(char) ?? char);
  const names = [...new Set(forms.filter((_, label) => occurs[label]))];
  return { names, columns: forms.map((char, label) => (occurs[label] ? names.indexOf(char) : -1)) };
}

function inCase(char, written) {
  const other = written === "lower" ? char.toLowerCase() : written === "upper" ? char.toUpperCase() : char;
  return [...other].length === 1 ? other : char; // a sharp s has no capital of one letter
}

/** What is written instead of each character that looks like a preferred one. */
function lookalikes(preferred) {
  const instead = new Map();
  for (const char of new Set(preferred)) {
    for (const group of LOOKALIKES.filter((characters) => characters.includes(char))) {
      const other = instead.get(char);
      check(!other, `“${other}” and “${char}” look alike: only one of them can be preferred`);
      for (const alike of group) instead.set(alike, char);
    }
  }
  return instead;
}

/** Adds the probabilities of the network's characters up to those that an answer is written in. */
function addUp(probs, columns, names) {
  const total = new Float32Array(names.length);
  columns.forEach((column, label) => {
    if (column >= 0) total[column] += probs[label];
  });
  return [...total];
}

/** A character of a spelling, with its alternatives. */
function character({ label, probs }, presence, box, names) {
  const weights = probs.map((prob) => prob * presence);
  const others = argsort(weights).filter((other) => other !== label && weights[other] > MIN_ALTERNATIVE);
  const alternatives = others.slice(0, MAX_ALTERNATIVES).map((other) => [names[other], weights[other]]);
  return { char: names[label], score: weights[label], box, alternatives };
}

// --- reader.py

/** What the weights expect, but for what somebody who knows better says; a pattern says all. */
function expected(settings, { charset, length, case: written = "keep", pattern = null }) {
  const isTold = charset !== null || pattern !== null;
  const spelt = length === null && pattern === null ? settings.lengths : length === null ? null : parseLength(length);
  const [minLength, maxLength] = spelt ?? [0, Infinity];
  return {
    allowed: isTold ? charset : (settings.allowed ?? null),
    case: written === "keep" && !isTold ? (settings.case ?? "keep") : written,
    minLength,
    maxLength,
  };
}

/** A string that holds more than this share of the network's own probability is the answer. */
export const SURE = 0.6;

/**
 * Reads captcha pictures with a network.
 *
 * @param {(picture: Picture) => Promise<Detections>} detect Runs the network on a picture of its input size; boxes in
 *   pixels of that.
 * @param {object} settings What the weights say about their network: `NetworkSettings` in Python, as JSON.
 * @param {object} options `charset`: a name or the characters that may occur; `length`: 4, "4" or "3-6"; `case`:
 *   "keep", "lower" or "upper"; `prefer`: characters to be written for all that look like them; `pattern`: a mask or a
 *   regular expression; `topK`: how many strings a reading lists; `looks`: how many looks at most.
 * @throws {RangeError} if an option is out of its range, or no string of the network's characters is allowed.
 */
export class Reader {
  constructor(
    detect,
    settings,
    { charset = null, length = null, case: written, prefer, pattern, topK, looks = Infinity } = {},
  ) {
    check(looks >= 1, `looks must be at least 1, not ${looks}`);
    this.detect = detect;
    this.settings = settings;
    const { score_thresh: scoreThresh, overlap_thresh: overlapThresh } = settings;
    const asked = expected(settings, { charset, length, case: written, pattern });
    this.options = readingOptions({ scoreThresh, overlapThresh, ...asked, prefer, pattern, topK });
    this.constraint = constraint([...settings.charset], this.options);
    this.compared = { ...this.options, topK: Math.max(this.options.topK, STRINGS_PER_LOOK) };
    this.mostLooks = looks;
  }

  /**
   * Looks at a picture until the answer is sure, or there is no further look.
   * @param {Picture} image
   * @returns {Promise<Reading>} Boxes in pixels of the picture.
   */
  async read(image) {
    const { looks, calibration, agreed_calibration: agreed } = this.settings;
    const [seen, views] = [[], new Set()];
    let answer;
    for (const look of looks.slice(0, this.mostLooks)) {
      const found = seen[0]?.characters.map(({ box }) => box) ?? [];
      const view = viewOf(look, [image.height, image.width], found, this.settings);
      if (!view || views.has(String([...view.region, ...view.size]))) continue; // it shows nothing new
      views.add(String([...view.region, ...view.size]));
      answer = this.answer(await this.detectIn(image, view), seen);
      if (answer.confidence > SURE) break;
    }
    return calibrate(answer, ...(seen.length > 1 ? (agreed ?? calibration) : calibration));
  }

  /** Runs the network on a view of a picture; boxes in pixels of the picture. */
  async detectIn(image, { region: [x1, y1, x2, y2], size }) {
    const seen = await this.detect(resize(crop(image, [x1, y1, x2, y2]), ...size));
    const boxes = boxesToImage(seen.boxes, size, [y2 - y1, x2 - x1]).map((value, i) => value + (i % 2 ? y1 : x1));
    return { ...seen, boxes };
  }

  /** The answer after one more look; `seen` is what those before it read, and grows. */
  answer(detections, seen) {
    if (seen.length === 0) {
      const reading = read(detections, this.constraint, this.options);
      if (reading.confidence > SURE || Math.min(this.settings.looks.length, this.mostLooks) === 1) return reading;
    }
    seen.push(read(detections, this.constraint, this.compared));
    return agree(seen, this.options.topK);
  }
}

/** Turns 4, "4" or "3-6" into the shortest and the longest length. */
export function parseLength(length) {
  const parts = String(length).split("-").map((part) => part.trim());
  const [shortest, longest] = [Number(parts[0]), Number(parts.at(-1))];
  const valid = parts.length <= 2 && parts.every((part) => /^\d+$/.test(part)) && 1 <= shortest && shortest <= longest;
  check(valid, `length must be a number such as 4 or a range such as 3-6, at least 1, not “${length}”`);
  return [shortest, longest];
}

// --- what NumPy and Python bring along

/** The places of values, largest first; equal ones keep their order. */
function argsort(values) {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : Math.fround((sorted[middle - 1] + sorted[middle]) / 2);
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
