/**
 * Reads captchas from what the network sees: the page's mirror of the Python package, function by function.
 *
 * `detector/charset.py`, `images.py`, `reading.py` and `reader.py` hold the explanations; the sections here bear their
 * names, and `tests/browser` holds both to the same answers. Plain JavaScript without dependencies: it runs wherever
 * modules do.
 *
 * @typedef {{data: Uint8Array | Uint8ClampedArray, height: number, width: number}} Picture RGB, [height, width, 3]
 * @typedef {{boxes: Float32Array, scores: Float32Array, probs: Float32Array}} Detections [N, 4] xyxy, [N], [N, C]
 * @typedef {[number, number, number, number]} Box x1, y1, x2, y2
 * @typedef {{char: string, score: number, box: Box, alternatives: [string, number][]}} Character
 * @typedef {{text: string, confidence: number, characters: Character[], readings: [string, number][]}} Reading
 */

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

/**
 * Marks the characters that may occur.
 * @param {string[]} charset The characters of the network's classes, in order.
 * @param {string} allowed A named charset or the characters themselves; those that the network lacks are ignored.
 * @returns {boolean[]} One per class.
 */
export function allowedMask(charset, allowed) {
  const characters = new Set(NAMED_CHARSETS.get(allowed) ?? allowed);
  const mask = charset.map((char) => characters.has(char));
  if (!mask.includes(true)) {
    throw new RangeError(`no character of “${allowed}” is among those the model knows: ${charset.join("")}`);
  }
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
  minLength = 0,
  maxLength = Infinity,
  topK = 1,
} = {}) {
  check(0 < scoreThresh && scoreThresh < 1, `scoreThresh must be between 0 and 1, not ${scoreThresh}`);
  check(0 < overlapThresh && overlapThresh <= 1, `overlapThresh must be above 0, at most 1, not ${overlapThresh}`);
  check(["keep", "lower", "upper"].includes(written), `case must be keep, lower or upper, not ${written}`);
  check(0 <= minLength && minLength <= maxLength, `need 0 <= minLength <= maxLength, not ${minLength}..${maxLength}`);
  check(topK >= 1, `topK must be at least 1, not ${topK}`);
  return { scoreThresh, overlapThresh, allowed, case: written, minLength, maxLength, topK };
}

function check(condition, message) {
  if (!condition) throw new RangeError(message);
}

/**
 * Reads a string from the characters detected in one image.
 * @param {Detections} detections
 * @param {string[]} charset The characters of the network's classes, in order.
 * @param {ReturnType<typeof readingOptions>} options
 * @returns {Reading}
 */
export function read(detections, charset, options) {
  const [distinct, presence, weights, names] = candidates(detections, charset, options);
  const boxes = distinct.map((row) => boxOf(detections, row));
  const absence = presence.map((value) => 1 - value);
  const best = weights.map((row, i) => Math.max(...row) / absence[i]);
  const bestFirst = argsort(best);
  let count = Math.max(presence.filter((value) => value >= 0.5).length, options.minLength);
  count = Math.min(count, options.maxLength, distinct.length);
  const leftToRight = argsort(boxes.map((box) => -(box[0] + box[2])));
  const chosen = new Set(bestFirst.slice(0, count));
  const characters = leftToRight
    .filter((i) => chosen.has(i))
    .map((i) => character(weights[i], boxes[i], names));
  const text = characters.map(({ char }) => char).join("");
  let confidence = product(characters.map(({ score }) => score));
  confidence *= product(bestFirst.slice(count).map((i) => absence[i]));
  if (distinct.length < options.minLength) confidence = 0;
  const readings = [[text, confidence]];
  if (options.topK > 1) {
    const ordered = leftToRight.map((i) => weights[i]);
    const others = mostProbableStrings(ordered, leftToRight.map((i) => absence[i]), names, options);
    readings.push(...others.filter(([other]) => other !== text).slice(0, options.topK - 1));
  }
  return { text, confidence, characters, readings };
}

/** The rows that may be characters, how probably each is one, its weight as every character, and their names. */
function candidates(detections, charset, options) {
  const { scores, probs } = detections;
  const classes = charset.length;
  check(probs.length === scores.length * classes, `the detections do not fit ${classes} characters`);
  let rows = distinctRows(detections, options.overlapThresh, Math.min(MIN_SCORE, options.scoreThresh / 2));
  if (rows.length < options.minLength) {
    rows = distinctRows(detections, options.overlapThresh, 0).slice(0, options.minLength);
  }
  const presence = rows.map((row) => presenceOf(scores[row], options.scoreThresh));
  const classProbs = rows.map((row) => [...probs.subarray(row * classes, (row + 1) * classes)]);
  const [folded, names] = fold(maskedProbs(classProbs, charset, options.allowed), charset, options.case);
  return [rows, presence, folded.map((row, i) => row.map((prob) => prob * presence[i])), names];
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
  const others = mostProbable(listed, count).filter(([text]) => text !== surest.text);
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
 * The most probable strings of an allowed length, exactly, with their probabilities, best first.
 * @param {number[][]} weights [N, C] The probability that candidate n, from left to right, is character c.
 * @param {number[]} absence N probabilities that the candidate is nothing at all.
 * @param {string[]} names The characters of the C columns.
 * @param {ReturnType<typeof readingOptions>} options
 * @returns {[string, number][]}
 */
export function mostProbableStrings(weights, absence, names, { minLength, maxLength, topK }) {
  let beams = [new Map([["", 1]])]; // beams[n]: the best strings of n characters so far
  weights.forEach((row, n) => {
    const labels = argsort(row).slice(0, topK).filter((label) => row[label] > 0);
    const grown = Array.from({ length: Math.min(beams.length, maxLength) + 1 }, () => new Map());
    beams.forEach((beam, length) => {
      for (const [text, prob] of beam) {
        keepBest(grown[length], text, prob * absence[n]);
        if (length >= maxLength) continue;
        for (const label of labels) keepBest(grown[length + 1], text + names[label], prob * row[label]);
      }
    });
    beams = grown.map((beam) => new Map(mostProbable(beam, topK)));
  });
  return mostProbable(new Map(beams.slice(minLength).flatMap((beam) => [...beam])), topK);
}

function keepBest(probs, text, prob) {
  if (prob > (probs.get(text) ?? 0)) probs.set(text, prob);
}

function mostProbable(probs, count) {
  return [...probs].sort((a, b) => b[1] - a[1]).slice(0, count);
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

/** Class distributions [N, C] given that only allowed characters occur; a row without any mass there is uniform. */
function maskedProbs(probs, charset, allowed) {
  if (allowed === null) return probs;
  const mask = allowedMask(charset, allowed);
  return probs.map((row) => {
    const masked = row.map((prob, label) => (mask[label] ? prob : 0));
    const kept = sum(masked) > 0 ? masked : mask.map(Number);
    const mass = sum(kept);
    return kept.map((prob) => prob / mass);
  });
}

/** Adds up [N, C] over the two forms of each letter, and names the columns that are left. */
function fold(probs, charset, written) {
  if (written === "keep") return [probs, charset];
  const forms = charset.map((char) => {
    const form = written === "lower" ? char.toLowerCase() : char.toUpperCase();
    return [...form].length === 1 ? form : char; // a sharp s has no capital of one letter
  });
  const names = [...new Set(forms)];
  const columns = forms.map((form) => names.indexOf(form));
  const folded = probs.map((row) => {
    const total = names.map(() => 0);
    row.forEach((prob, label) => (total[columns[label]] += prob));
    return total;
  });
  return [folded, names];
}

/** The most probable character of a row of weights, with its alternatives. */
function character(weights, box, names) {
  const [best, ...others] = argsort(weights).filter((label, rank) => rank === 0 || weights[label] > MIN_ALTERNATIVE);
  const alternatives = others.slice(0, MAX_ALTERNATIVES).map((label) => [names[label], weights[label]]);
  return { char: names[best], score: weights[best], box, alternatives };
}

// --- reader.py

/** A string that holds more than this share of the network's own probability is the answer. */
export const SURE = 0.5;

/**
 * Reads captcha pictures with a network.
 *
 * @param {(picture: Picture) => Promise<Detections>} detect Runs the network on a picture of its input size; boxes in
 *   pixels of that.
 * @param {object} settings What the weights say about their network: `NetworkSettings` in Python, as JSON.
 * @param {object} options `charset`: a name or the characters that may occur; `length`: 4, "4" or "3-6"; `case`:
 *   "keep", "lower" or "upper"; `topK`: how many strings a reading lists; `looks`: how many looks at most.
 * @throws {RangeError} if an option is out of its range, or the network knows none of the characters.
 */
export class Reader {
  constructor(detect, settings, { charset = null, length = null, case: written, topK, looks = Infinity } = {}) {
    const [minLength, maxLength] = length === null ? [0, Infinity] : parseLength(length);
    check(looks >= 1, `looks must be at least 1, not ${looks}`);
    this.detect = detect;
    this.settings = settings;
    this.charset = [...settings.charset];
    if (charset !== null) allowedMask(this.charset, charset); // throws where the network knows none of them
    const { score_thresh: scoreThresh, overlap_thresh: overlapThresh } = settings;
    this.options = readingOptions({
      scoreThresh, overlapThresh, allowed: charset, case: written, minLength, maxLength, topK,
    });
    this.compared = { ...this.options, topK: Math.max(this.options.topK, STRINGS_PER_LOOK) };
    this.mostLooks = looks;
  }

  /**
   * Looks at a picture until the answer is sure, or there is no further look.
   * @param {Picture} image
   * @returns {Promise<Reading>} Boxes in pixels of the picture.
   */
  async read(image) {
    const sizes = this.networkSizes([image.height, image.width]);
    const seen = [];
    let answer;
    for (const [height, width] of sizes) {
      const seenNow = await this.detect(resize(image, height, width));
      const boxes = boxesToImage(seenNow.boxes, [height, width], [image.height, image.width]);
      answer = this.answer({ ...seenNow, boxes }, seen, sizes.length);
      if (answer.confidence > SURE) break;
    }
    return calibrate(answer, ...this.settings.calibration);
  }

  /** The answer after one more of some looks; `seen` is what those before it read, and grows. */
  answer(detections, seen, looks) {
    if (seen.length === 0) {
      const reading = read(detections, this.charset, this.options);
      if (reading.confidence > SURE || looks === 1) return reading;
    }
    seen.push(read(detections, this.charset, this.compared));
    return agree(seen, this.options.topK);
  }

  /** Height and width of an image at each look; a size that it has had already shows nothing new. */
  networkSizes([imageHeight, imageWidth]) {
    const { looks, width_multiple: multiple, max_width: most } = this.settings;
    const sizes = new Map();
    for (const [height, stretch] of looks.slice(0, this.mostLooks)) {
      const stretched = [imageHeight, Math.max(roundHalfToEven(imageWidth * stretch), 1)];
      const size = [height, networkWidth(stretched, height, multiple, most)];
      sizes.set(size.join("x"), size);
    }
    return [...sizes.values()];
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

function product(values) {
  return values.reduce((total, value) => total * value, 1);
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
