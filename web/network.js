/** Opens a network on ONNX Runtime Web, and decodes picture files: what `reader.js` needs of the browser. */

import * as ort from "./onnxruntime/ort.js";
import { flatten, MAX_PIXELS } from "./reader.js";

const MAX_BYTES = 64_000_000; // of a file: four a pixel of the largest picture
const RUNTIME = "onnxruntime/ort.wasm.gz";

// One thread: more need headers that a plain file server does not send.
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

/** A picture that cannot be read; the message says why, and what to do. */
export class ImageError extends Error {}

/**
 * Downloads some weights, and on the first call the runtime, and opens them.
 * @param {string} weights Their name: `tiny` or `default`.
 * @param {(received: number, total: number) => void} onProgress Told in bytes.
 * @returns {Promise<{settings: object, detect: (picture: object) => Promise<object>}>} What `Reader` takes.
 */
export async function openNetwork(weights, onProgress = () => {}) {
  const files = [`models/${weights}.onnx.gz`, `models/${weights}.json`];
  if (!ort.env.wasm.wasmBinary) files.push(RUNTIME);
  const total = files.map((file) => RELEASE.files[file]).reduce((a, b) => a + b);
  let received = 0;
  const count = (bytes) => onProgress((received += bytes), total);
  const [model, settings, runtime] = await Promise.all(files.map((file) => download(file, count)));
  if (runtime) ort.env.wasm.wasmBinary = runtime;
  const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3 });
  return { settings: JSON.parse(new TextDecoder().decode(settings)), detect: (picture) => detect(session, picture) };
}

async function detect(session, { data, height, width }) {
  const images = new ort.Tensor("uint8", data, [1, height, width, 3]);
  const { boxes, scores, probs } = await session.run({ images });
  return { boxes: boxes.data, scores: scores.data, probs: probs.data };
}

/** The unpacked bytes of a file of this release, kept for offline use as they came. */
async function download(file, onBytes) {
  // The browser keeps nothing for pages that came without encryption, and may be short of space.
  const cache = await globalThis.caches?.open(RELEASE.name).catch(() => null);
  const kept = await cache?.match(file);
  const response = kept ?? (await fetch(file));
  if (!response.ok) throw new Error(`${file}: the server answered ${response.status}`);
  const chunks = [];
  for (const stream = response.body.getReader(); ; ) {
    const { done, value } = await stream.read();
    if (done) break;
    chunks.push(value);
    onBytes(value.length);
  }
  const packed = new Blob(chunks);
  if (!kept) await cache?.put(file, new Response(packed)).catch(() => null);
  return unpack(packed);
}

/** Files are stored packed, since plain servers send them as they are; some unpack `.gz` on the way all the same. */
async function unpack(blob) {
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const packed = first === 0x1f && second === 0x8b;
  const stream = packed ? blob.stream().pipeThrough(new DecompressionStream("gzip")) : blob.stream();
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Decodes a picture file: first frame, EXIF orientation applied, transparency flattened, as `images.load` in Python.
 * @param {Blob} file
 * @returns {Promise<import("./reader.js").Picture>}
 * @throws {ImageError} if the browser cannot decode it, or it is larger than `MAX_PIXELS`.
 */
export async function decode(file) {
  if (file.size === 0) throw new ImageError("is empty: get the file again");
  if (file.size > MAX_BYTES) throw new ImageError("is larger than 64 MB; cut out the captcha");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new ImageError("is broken, or of a kind that this browser cannot show; try PNG, JPEG, GIF, BMP or WebP");
  }
  const { height, width } = bitmap;
  try {
    if (height * width > MAX_PIXELS) throw new ImageError("has more than 16 million pixels; cut out the captcha");
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d", { willReadFrequently: true }); // in memory, where pixels stay as they are
    pen.drawImage(bitmap, 0, 0);
    return flatten({ data: pen.getImageData(0, 0, width, height).data, height, width });
  } finally {
    bitmap.close();
  }
}
