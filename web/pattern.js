/**
 * Which strings are allowed: a pattern, as the automaton that reading walks along. The page's mirror of
 * `detector/pattern.py`, which holds the explanations, function by function.
 *
 * @typedef {{accepts: boolean, labels: number[], branches: [number[], number][]}} State Whether a string may end here,
 *   the labels that may come next, and the same by the place of the state that they lead to.
 * @typedef {{states: State[], shortest: number}} Automaton The first state is the start.
 */

const MASK_LETTERS = {
  9: ["digits", /\p{Nd}/u],
  L: ["letters of either case", /\p{L}/u],
  A: ["capitals", /\p{Uppercase}/u],
  a: ["small letters", /\p{Lowercase}/u],
  X: ["any characters", /./su],
};
const MAX_STATES = 1000;
const MAX_PATTERN = 200;
const MAX_GROUPS = 20;
const DIGITS = [..."0123456789"];
const SPECIAL = new Set("|*+?{}()[].\\^$");
const MANY = 1e6; // repetitions: more than there can be states, and few enough to be counted exactly

/** Throws what the page shows, unless a condition holds. */
export function check(condition, message) {
  if (!condition) throw new RangeError(message);
}

/**
 * Compiles a pattern and length bounds.
 * @param {string[]} names The character of each label.
 * @param {string | null} pattern A mask, or a regular expression that the whole string matches; null allows every one.
 * @param {number} minLength
 * @param {number} maxLength Infinity sets no limit.
 * @returns {Automaton}
 * @throws {RangeError} if the pattern is none, needs too many states, or no string of these characters fits.
 */
export function automaton(names, pattern, minLength, maxLength) {
  const expressions = new Expressions();
  let start = expressions.repeat(expressions.characters(names), minLength, maxLength);
  if (pattern !== null) start = expressions.both(parse(pattern, names, expressions), start);
  const steps = explore(start, names, expressions);
  const ends = shortestEnds(steps);
  const known = names.join("");
  check(ends.has(start), `no string of the characters “${known}” and of this length fits the pattern “${pattern}”`);
  const kept = [...steps.keys()].filter((expression) => ends.has(expression));
  const numbers = new Map(kept.map((expression, number) => [expression, number]));
  const states = kept.map((expression) => {
    const branches = new Map();
    steps.get(expression).forEach((rest, label) => {
      if (!numbers.has(rest)) return;
      if (!branches.has(numbers.get(rest))) branches.set(numbers.get(rest), []);
      branches.get(numbers.get(rest)).push(label);
    });
    const labels = [...branches.values()].flat().sort((a, b) => a - b);
    return { accepts: expression.ends, labels, branches: [...branches].map(([to, group]) => [group, to]) };
  });
  return { states, shortest: ends.get(start) };
}

/** What follows each label, for every expression that can be reached from the first one, breadth first. */
function explore(start, names, expressions) {
  const kinds = [...charactersIn(start)];
  const firstAlike = new Map(); // characters that no part tells apart lead to the same expression
  const alike = names.map((name) => {
    const key = kinds.map((kind) => Number(kind.has(name))).join("");
    if (!firstAlike.has(key)) firstAlike.set(key, name);
    return firstAlike.get(key);
  });
  const steps = new Map();
  const reached = [start];
  for (const state of reached) {
    if (steps.has(state)) continue;
    check(
      steps.size < MAX_STATES,
      "the pattern and the length are too intricate: give a simpler pattern or a shorter length",
    );
    const rests = new Map([...firstAlike.values()].map((name) => [name, expressions.derive(state, name)]));
    steps.set(state, alike.map((name) => rests.get(name)));
    reached.push(...rests.values());
  }
  return steps;
}

/** How many characters it takes at least from each expression to a string's end; endless ones are missing. */
function shortestEnds(steps) {
  const before = new Map();
  for (const [expression, rests] of steps) {
    for (const rest of rests) {
      if (!before.has(rest)) before.set(rest, new Set());
      before.get(rest).add(expression);
    }
  }
  const reached = [...steps.keys()].filter((expression) => expression.ends);
  const ends = new Map(reached.map((expression) => [expression, 0]));
  for (const expression of reached) {
    for (const longer of before.get(expression) ?? []) {
      if (ends.has(longer)) continue;
      ends.set(longer, ends.get(expression) + 1);
      reached.push(longer);
    }
  }
  return ends;
}

function parse(pattern, names, expressions) {
  const characters = [...pattern];
  check(
    characters.length <= MAX_PATTERN && characters.filter((char) => char === "(").length <= MAX_GROUPS,
    `a pattern has ${MAX_PATTERN} characters and ${MAX_GROUPS} groups at most: “${pattern.slice(0, 50)}”...`,
  );
  const isMask = !characters.some((char) => SPECIAL.has(char));
  return isMask ? mask(pattern, names, expressions) : new Parser(characters, names, expressions).whole();
}

function mask(pattern, names, expressions) {
  const wrong = [...pattern].find((char) => !Object.hasOwn(MASK_LETTERS, char));
  const meanings = Object.entries(MASK_LETTERS).map(([letter, [meaning]]) => `${letter} (${meaning})`).join(", ");
  const instead = wrong ? `, not “${wrong}”; a regular expression has one of | * + ? { ( [ .` : "";
  check(wrong === undefined && pattern, `the mask “${pattern}” must be made of ${meanings}${instead}`);
  const kinds = [...pattern].map((letter) => names.filter((name) => MASK_LETTERS[letter][1].test(name)));
  return expressions.chain(kinds.map((kind) => expressions.characters(kind)));
}

/** Recursive descent over one regular expression. */
class Parser {
  constructor(pattern, names, expressions) {
    this.pattern = pattern;
    this.names = names;
    this.expressions = expressions;
    this.place = 0;
  }

  whole() {
    const expression = this.alternatives();
    const reason = this.next() === ")" ? "there is no group to close" : "this is out of place";
    this.check(this.place === this.pattern.length, reason);
    return expression;
  }

  check(condition, reason) {
    check(condition, `the pattern “${this.pattern.join("")}” is wrong at character ${this.place + 1}: ${reason}`);
  }

  /** The character at hand; empty at the end. */
  next() {
    return this.pattern[this.place] ?? "";
  }

  /** Steps over a character if it is at hand. */
  take(char) {
    const found = this.next() === char;
    this.place += Number(found);
    return found;
  }

  need(char) {
    this.check(this.take(char), `${char} is missing`);
  }

  alternatives() {
    let expression = this.sequence();
    while (this.take("|")) expression = this.expressions.either(expression, this.sequence());
    return expression;
  }

  sequence() {
    const parts = [];
    while (!["", "|", ")"].includes(this.next())) parts.push(this.repetition());
    return this.expressions.chain(parts);
  }

  repetition() {
    let expression = this.atom();
    while (this.next() && "*+?{".includes(this.next())) {
      const bounds = { "*": [0, Infinity], "+": [1, Infinity], "?": [0, 1] }[this.next()];
      this.place += 1;
      expression = this.expressions.repeat(expression, ...(bounds ?? this.counts()));
    }
    return expression;
  }

  /** What stands in {n}, {n,} or {m,n}. */
  counts() {
    const least = this.number();
    let most = least;
    if (this.take(",")) most = this.next() === "}" ? Infinity : this.number();
    this.need("}");
    this.check(least <= most, `{${least},${most}} ends before it begins`);
    return [least, most];
  }

  number() {
    const start = this.place;
    while (DIGITS.includes(this.next())) this.place += 1;
    this.check(this.place > start, "a number is missing");
    return Math.min(Number(this.pattern.slice(start, this.place).join("")), MANY);
  }

  atom() {
    if (this.take("(")) {
      const expression = this.alternatives();
      this.need(")");
      return expression;
    }
    if (this.take("[")) return this.expressions.characters(this.charactersOfClass());
    return this.expressions.characters(this.take(".") ? this.names : this.character());
  }

  /** A character that stands for itself, `\d`, or an escaped special one. */
  character() {
    const char = this.next();
    if (char === "\\") {
      this.place += 1;
      const escaped = this.next();
      this.check(escaped === "d" || escaped === "-" || SPECIAL.has(escaped), `\\${escaped} has no meaning here`);
      this.place += 1;
      return escaped === "d" ? DIGITS : [escaped];
    }
    this.check(char !== "^" && char !== "$", `leave ${char} out, the whole string is matched anyway`);
    this.check(char && !SPECIAL.has(char), "there is nothing to repeat");
    this.place += 1;
    return [char];
  }

  /** What stands between [ and ]. */
  charactersOfClass() {
    const others = this.take("^");
    const found = new Set();
    while (!this.take("]")) {
      this.check(this.next(), "] is missing");
      const first = this.character();
      const [dash, last] = this.pattern.slice(this.place, this.place + 2);
      if (dash === "-" && last !== undefined && last !== "]" && first.length === 1) {
        this.place += 1;
        for (const char of this.range(first[0], this.character()[0])) found.add(char);
      } else {
        for (const char of first) found.add(char);
      }
    }
    return others ? this.names.filter((name) => !found.has(name)) : found;
  }

  range(low, high) {
    const [from, to] = [low.codePointAt(0), high.codePointAt(0)];
    this.check(from <= to, `the range ${low}-${high} ends before it begins`);
    return Array.from({ length: to - from + 1 }, (_, i) => String.fromCodePoint(from + i));
  }
}

/** Makes expressions: equal ones are the same object, and one that matches nothing is `nothing`. */
class Expressions {
  constructor() {
    this.made = new Map();
    this.nothing = this.make("nothing", "", { ends: false }); // matches no string
    this.end = this.make("end", "", { ends: true }); // matches the empty string alone
  }

  /** The expression of a kind that `key` tells from others of it; `ends`: whether the empty string matches. */
  make(kind, key, parts) {
    const name = `${kind} ${key}`;
    if (!this.made.has(name)) this.made.set(name, { kind, number: this.made.size, rests: new Map(), ...parts });
    return this.made.get(name);
  }

  characters(found) {
    const characters = [...found].sort();
    if (characters.length === 0) return this.nothing;
    return this.make("characters", characters.join(""), { ends: false, characters: new Set(characters) });
  }

  chain(parts) {
    return parts.reduceRight((rest, part) => this.then(part, rest), this.end);
  }

  then(first, second) {
    if (first === this.nothing || second === this.nothing) return this.nothing;
    if (first === this.end) return second;
    if (first.kind === "then") return this.then(first.first, this.then(first.second, second));
    if (second === this.end) return first;
    return this.make("then", `${first.number} ${second.number}`, { ends: first.ends && second.ends, first, second });
  }

  either(...parts) {
    const flat = parts.flatMap((part) => (part.kind === "either" ? part.options : [part]));
    const options = [...new Set(flat)].filter((part) => part !== this.nothing).sort((a, b) => a.number - b.number);
    if (options.length < 2) return options[0] ?? this.nothing;
    const key = options.map(({ number }) => number).join(" ");
    return this.make("either", key, { ends: options.some(({ ends }) => ends), options });
  }

  both(first, second) {
    if (first === this.nothing || second === this.nothing) return this.nothing;
    return this.make("both", `${first.number} ${second.number}`, { ends: first.ends && second.ends, first, second });
  }

  repeat(part, least, most) {
    if (most === 0 || (part === this.nothing && least === 0) || part === this.end) return this.end;
    if (part === this.nothing) return this.nothing;
    const from = part.ends ? 0 : least;
    if (from === 1 && most === 1) return part;
    return this.make("repeat", `${part.number} ${from} ${most}`, { ends: from === 0, part, least: from, most });
  }

  /** What must follow once `char` has been read. */
  derive(expression, char) {
    const { rests } = expression;
    if (!rests.has(char)) rests.set(char, this.deriveAnew(expression, char));
    return rests.get(char);
  }

  deriveAnew(expression, char) {
    const { kind, first, second, part } = expression;
    if (kind === "characters") return expression.characters.has(char) ? this.end : this.nothing;
    if (kind === "then") {
      const begun = this.then(this.derive(first, char), second);
      return first.ends ? this.either(begun, this.derive(second, char)) : begun;
    }
    if (kind === "either") return this.either(...expression.options.map((option) => this.derive(option, char)));
    if (kind === "both") return this.both(this.derive(first, char), this.derive(second, char));
    if (kind === "repeat") {
      const rest = this.repeat(part, Math.max(expression.least - 1, 0), expression.most - 1);
      return this.then(this.derive(part, char), rest);
    }
    return this.nothing;
  }
}

/** The sets of characters that an expression is made of. */
function charactersIn(expression, found = new Set()) {
  if (expression.characters) found.add(expression.characters);
  const inner = [...(expression.options ?? []), expression.first, expression.second, expression.part];
  for (const part of inner) if (part) charactersIn(part, found);
  return found;
}
