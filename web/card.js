/** One picture on the page: what it shows, and what was read from it. */

import { decode, ImageError } from "./network.js";

const SVG = "http://www.w3.org/2000/svg";
const UNSURE = 0.5; // below this a character is marked as a guess

/** A probability in words; nothing is certain. */
export function percent(share) {
  return share > 0 && share < 0.01 ? "< 1 %" : `${Math.min(Math.round(100 * share), 99)} %`;
}

/** Copies a text, and says so on the button that was pressed. */
export async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  const name = button.textContent;
  button.textContent = "Copied";
  button.disabled = true; // or the second press would take “Copied” for its name
  setTimeout(() => Object.assign(button, { textContent: name, disabled: false }), 1000);
}

export class Card {
  /**
   * @param {File} file
   * @param {(card: Card) => void} onRemove
   */
  constructor(file, onRemove) {
    this.file = file;
    this.reading = null;
    this.error = null;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.find("figcaption").textContent = file.name;
    this.find(".remove").addEventListener("click", () => onRemove(this));
    this.find(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    this.find(".copy").addEventListener("click", ({ currentTarget }) => copy(this.reading.text, currentTarget));
    this.find(".copy").setAttribute("aria-label", `Copy the text of ${file.name}`);
    this.find(".characters").setAttribute("aria-label", `Characters in ${file.name}`);
    this.find(".characters").addEventListener("keydown", (event) => this.moveFocus(event));
    this.find(".copy").hidden = true;
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /**
   * Reads the picture, for the first time or with another reader, and shows the answer.
   * @param {import("./reader.js").Reader} reader
   */
  async read(reader) {
    try {
      this.picture ??= await this.open();
      this.reading = await reader.read(this.picture);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.error = error.message;
    }
    this.show();
  }

  /** Decodes the picture and shows it as the network will see it. */
  async open() {
    const picture = await decode(this.file);
    const { data, height, width } = picture;
    const pixels = new ImageData(width, height);
    for (let from = 0, to = 0; from < data.length; to += 4) {
      pixels.data.set([data[from++], data[from++], data[from++], 255], to);
    }
    const canvas = this.find("canvas");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    this.find("svg").setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.find("figure").style.setProperty("--width", width);
    return picture;
  }

  show() {
    this.find(".pending").hidden = this.error === null;
    if (this.error !== null) {
      this.element.classList.add("failed");
      this.find(".pending").textContent = `This picture ${this.error}.`;
      return;
    }
    const { text, confidence, characters } = this.reading;
    this.find(".confidence").hidden = false;
    this.find("meter").value = confidence;
    this.find(".confidence span").textContent = `${percent(confidence)} sure`;
    this.find(".characters").replaceChildren(...characters.map((character, i) => this.button(character, i)));
    this.find("svg").replaceChildren(...characters.map(({ box }, i) => this.rectangle(box, i)));
    this.find(".copy").hidden = text === "" || !navigator.clipboard; // which pages without encryption lack
    this.point(null);
  }

  button({ char, score }, i) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = i === 0 ? 0 : -1; // one stop of the Tab key; the arrows go on from there
    button.classList.toggle("unsure", score < UNSURE);
    button.setAttribute("aria-label", `${char}, ${percent(score)}`);
    button.append(Object.assign(document.createElement("b"), { textContent: char }), percent(score));
    this.pointAtFrom(button, i);
    button.addEventListener("focus", () => this.point(i));
    button.addEventListener("blur", () => this.point(null));
    return button;
  }

  rectangle([x1, y1, x2, y2], i) {
    const rectangle = document.createElementNS(SVG, "rect");
    const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
    for (const [name, value] of Object.entries(place)) rectangle.setAttribute(name, value);
    this.pointAtFrom(rectangle, i);
    return rectangle;
  }

  pointAtFrom(element, i) {
    element.addEventListener("pointerenter", () => this.point(i));
    element.addEventListener("pointerleave", () => this.point(null));
  }

  /** Marks a character in the picture and in the text, and tells its alternatives; with null, those of the string. */
  point(place) {
    const parts = [this.find("svg").children, this.find(".characters").children];
    for (const part of parts) [...part].forEach((element, i) => element.classList.toggle("pointed", i === place));
    this.find(".details").textContent = place === null ? this.others() : this.alternatives(place);
  }

  others() {
    if (this.reading.text === "") return "No character found.";
    const others = this.reading.readings.slice(1).filter(([, prob]) => prob >= 0.01);
    if (others.length === 0) return "";
    return `Or ${others.map(([text, prob]) => `${text || "nothing"} ${percent(prob)}`).join(", ")}`;
  }

  alternatives(place) {
    const { char, score, alternatives } = this.reading.characters[place];
    const others = alternatives.map(([other, prob]) => `${other} ${percent(prob)}`);
    return `${char} ${percent(score)}` + (others.length ? `, or ${others.join(", ")}` : ", and hardly anything else");
  }

  moveFocus(event) {
    const buttons = [...this.find(".characters").children];
    const place = buttons.indexOf(document.activeElement);
    const targets = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: buttons.length - 1 };
    const target = buttons[targets[event.key]];
    if (!target) return;
    event.preventDefault();
    for (const button of buttons) button.tabIndex = button === target ? 0 : -1;
    target.focus();
  }
}
