// Calls web/reader.js and web/pattern.js for test_web_reader.py: a JSON call per line of standard input, a JSON answer per line of output.

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { automaton } from "../../web/pattern.js";
import * as reader from "../../web/reader.js";

const CALLS = {
  automaton: ({ names, pattern, minLength, maxLength }) => automaton([...names], pattern, minLength, maxLength ?? Infinity),
  read: ({ detections, charset, options }) => {
    const known = reader.readingOptions(options);
    return reader.read(typed(detections), reader.constraint([...charset], known), known);
  },
  agree: ({ readings, count }) => reader.agree(readings, count),
  calibrate: ({ reading, slope, offset }) => reader.calibrate(reading, slope, offset),
  mostProbableStrings: ({ presence, probs, names, pattern, minLength, maxLength, count }) => {
    const allowed = automaton([...names], pattern, minLength, maxLength ?? Infinity);
    return reader.mostProbableStrings(presence, probs, [...names], allowed, count);
  },
  resize: ({ image, height, width }) => digest(reader.resize(picture(image), height, width)),
  flatten: ({ image }) => digest(reader.flatten(picture(image))),
  parseLength: ({ length }) => reader.parseLength(length),
  // A whole reading: the network's answers are given for the pixels that it would be shown, and for no others.
  readImage: ({ image, looks, settings, options }) =>
    new reader.Reader(async (shown) => typed(looks[digest(shown)]), settings, options).read(picture(image)),
};

function typed({ boxes, scores, probs }) {
  const floats = (text) => new Float32Array(Uint8Array.from(Buffer.from(text, "base64")).buffer);
  return { boxes: floats(boxes), scores: floats(scores), probs: floats(probs) };
}

function picture({ data, height, width }) {
  return { data: Buffer.from(data, "base64"), height, width };
}

function digest({ data, height, width }) {
  return `${height}x${width} ${createHash("sha256").update(data).digest("hex")}`;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { call, ...args } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: await CALLS[call](args) }));
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    console.log(JSON.stringify({ error: error.message }));
  }
}
