// Raw values of one field to codes, as slimrank does it in Python: 0 for what is unknown or missing, 1.. for values.
// A value is brought to one form on its own (7, 7.0, "7" and true/1 are one), whatever stands in the other rows.
// Left out: sequences and numbers, which encoding.js lays over this.

/** Something that was given is wrong; the message says what, what is allowed, and the nearest match. */
export class InputError extends Error {
  name = "InputError";
}

const LEAST = -(2n ** 63n), MOST = 2n ** 63n - 1n;
const INTEGER = /^([+-]?)(\d+)$/;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** The type of a value, called as in the errors of the other runtimes. */
export function typeName(value) {
  if (value === null || value === undefined) return "NoneType";
  if (Array.isArray(value)) return "list";
  if (typeof value === "number") return Number.isInteger(value) ? "int" : "float";
  return { string: "str", boolean: "bool", bigint: "int", object: "dict" }[typeof value] ?? typeof value;
}

/** A value in an error: text in quotes, and not for ever. */
export function quoted(value) {
  if (typeof value !== "string") return value === null || value === undefined ? "None" : String(value);
  const short = value.length > 80 ? `${value.slice(0, 80)}...` : value;
  return `'${JSON.stringify(short).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
}

/** The end of an error: the allowed names, and the one nearest to `name`. */
export function nearest(name, allowed) {
  const names = [...allowed].slice(0, 100).map((each) => String(each).slice(0, 80)).sort();
  const near = names.map((each) => [likeness(String(name).slice(0, 80), each), each]).sort((a, b) => b[0] - a[0])[0];
  const hint = near && near[0] >= 0.5 ? `Did you mean ${quoted(near[1])}? ` : "";
  return `${hint}Allowed: ${names.join(", ")}.`;
}

/** 1 for equal words, 0 for words that share nothing: one minus edits by length. */
function likeness(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, place) => place);
  for (let i = 1; i <= one.length; i++) {
    const next = [i];
    for (let j = 1; j <= other.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] !== other[j - 1])));
    }
    row = next;
  }
  return 1 - row.at(-1) / Math.max(one.length, other.length, 1);
}

/**
 * A raw id as an integer where it is a whole number of 64 bits, else as text; null where it is missing (null, NaN).
 * Integers that a double holds exactly are numbers, others bigints. `where` names the value, for an error.
 */
export function canonical(value, where = () => "value") {
  switch (typeof value) {
    case "string":
      if (LONE_SURROGATE.test(value)) throw new InputError(`${where()} holds text that is no Unicode: a lone surrogate`);
      return value;
    case "number":
      if (Number.isNaN(value)) return null;
      if (Number.isSafeInteger(value)) return value + 0 || 0; // -0 is 0
      return Number.isInteger(value) ? whole(BigInt(value)) : floatText(value);
    case "bigint":
      return whole(value);
    case "boolean":
      return Number(value);
  }
  if (value === null || value === undefined) return null;
  throw new InputError(`${where()} holds a ${typeName(value)}; an id is an integer or text`);
}

function whole(integer) {
  if (integer < LEAST || integer > MOST) return String(integer);
  const number = Number(integer);
  return Number.isSafeInteger(number) ? number : integer;
}

/** A float that is no whole number as Python writes it: shortest, with an exponent of two digits below 1e-4. */
function floatText(value) {
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Math.abs(value) >= 1e-4) return String(value);
  return value.toExponential().replace(/e-(\d)$/, "e-0$1");
}

/** A canonical value as an integer; null where it is text that is none of 64 bits. */
export function asInteger(value) {
  if (typeof value !== "string") return value;
  const [, sign, written] = INTEGER.exec(value) ?? [];
  const digits = written?.replace(/^0+(?=\d)/, "");
  if (digits === undefined || digits.length > 19) return null;
  const found = whole(BigInt(sign === "-" ? `-${digits}` : digits));
  return typeof found === "string" ? null : found;
}

/** Codes by a vocabulary: the value at place i has code i + 1. Made of `{type, values}`, values in order of codes. */
export class Vocabulary {
  constructor({ type, values }) {
    this.type = type;
    this.values = values; // of integers those that stand as text are read in place: there may be millions
    this.size = values.length + 1;
    this.table = new Map();
    values.forEach((each, place) => {
      if (type === "int" && typeof each === "string") values[place] = asInteger(each);
      this.table.set(values[place], place + 1);
    });
  }

  /** Codes of canonical values, and how many (missing ones aside) are unknown. */
  codes(values) {
    const form = this.type === "int" ? asInteger : String;
    let unknown = 0;
    const codes = Int32Array.from(values, (value) => {
      const code = value === null ? 0 : this.table.get(form(value)) ?? 0;
      if (!code && value !== null) unknown += 1;
      return code;
    });
    return { codes, unknown };
  }
}

/** Code 1 + crc32(utf-8 of the value as text) % count: no table, and no value is unknown. */
export class Hashed {
  constructor(count) {
    this.count = count;
    this.size = count + 1;
  }

  codes(values) {
    const code = (value) => (value === null ? 0 : 1 + (crc32(String(value)) % this.count));
    return { codes: Int32Array.from(values, code), unknown: 0 };
  }
}

/** Code raw + 1 of raw ids that are already 0..count-1. */
export class Identity {
  constructor(count) {
    this.count = count;
    this.size = count + 1;
  }

  codes(values, name) {
    const wrong = [];
    const codes = Int32Array.from(values, (value) => {
      const raw = asInteger(value);
      if (raw !== null && raw >= 0 && raw < this.count) return Number(raw) + 1;
      if (value !== null) wrong.push(value);
      return 0;
    });
    if (wrong.length) {
      throw new InputError(
        `column ${quoted(name)}: ${wrong.length} of ${values.length} raw ids out of range, such as ` +
          `${[...new Set(wrong)].slice(0, 3).map(quoted).join(", ")}. Allowed: 0..${this.count - 1}.`,
      );
    }
    return { codes, unknown: 0 };
  }
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});
const utf8 = new TextEncoder();

/** CRC-32 (IEEE 802.3) of a text in UTF-8, as an unsigned number. */
export function crc32(text) {
  let value = 0xffffffff;
  for (const byte of utf8.encode(text)) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// Text that does not end is taken to the end: to try again at every quote would take the square of its length.
const TOKENS = /"[^"\\]*(?:\\(?:[^]|$)[^"\\]*)*(?:"|$)|-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Infinity)|NaN/g;
const WIDE = /^-?\d{16,}$/;

/**
 * Rows from JSON text, exactly: whole numbers beyond 2^53, which JSON.parse rounds, become bigints; NaN and Infinity,
 * which Python writes, are read.
 */
export function parseRows(text) {
  const mark = `\u0000${Math.random()}:`; // no text that was given begins so
  const marked = (token) => {
    return WIDE.test(token) || token.endsWith("NaN") || token.endsWith("Infinity") ? JSON.stringify(mark + token) : token;
  };
  const restored = (_, value) => {
    if (typeof value !== "string" || !value.startsWith(mark)) return value;
    const token = value.slice(mark.length);
    return WIDE.test(token) ? BigInt(token) : Number(token);
  };
  try {
    return JSON.parse(text.replace(TOKENS, marked), restored);
  } catch (error) {
    throw new InputError(`not JSON: ${error.message.slice(0, 200)}`);
  }
}
