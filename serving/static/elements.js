// What the pages build themselves from.

export const $ = (id) => document.getElementById(id);

export function element(name, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

export const percent = (share) => `${Math.floor(100 * share)} %`;
export const tone = (share) => (share >= 0.9 ? "sure" : share >= 0.6 ? "unsure" : "doubtful");
