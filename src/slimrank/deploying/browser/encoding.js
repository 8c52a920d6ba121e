// Raw rows to the arrays that the model takes, by the artifact's own rules and vocabulary (encoding.json).
// Ids of a field: 0 is unknown or missing, 1.. are values; in a sequence 0 is padding, 1 unknown, 2.. values.
// Left out: texts, whose tokenizers have no form here; the export refuses them.
import { Hashed, Identity, InputError, Vocabulary, canonical, nearest, quoted, typeName } from "./values.js";

const FORMAT = 1;
const FIELDS_NAMED = 10;

/** The fitted rules from raw rows to inputs. */
export class Encoding {
  /** Made of encoding.json, which it takes over; its format and artifact must be those of the manifest with it. */
  constructor(record, artifact) {
    if (record?.format !== FORMAT) {
      throw new InputError(`encoding.json: format ${quoted(record?.format)}, this module reads ${FORMAT}`);
    }
    if (record.artifact !== artifact) {
      const [one, other] = [record.artifact, artifact].map((digest) => String(digest).slice(0, 12));
      throw new InputError(`encoding.json: the vocabulary of another version (${one}), the model is ${other}`);
    }
    this.catalogue = record.catalogue;
    this.fields = record.fields.map(({ values, ...rest }) => rest); // values are kept once, by their codec
    this.codecs = new Map();
    for (const each of record.fields.filter((field) => field.kind !== "numeric")) {
      const codec = makeCodec(each);
      if (codec.size + (each.kind === "sequence") !== each.size) {
        throw new InputError(`encoding.json: field ${quoted(each.name)} has not the ${each.size} ids it says`);
      }
      this.codecs.set(each.name, codec);
    }
    const of = (kind) => this.fields.filter((field) => field.kind === kind);
    this.numeric = of("numeric");
    this.lookedUp = [...of("categorical"), ...of("sequence")];
    /** The field behind each column of ids. */
    this.columns = this.lookedUp.flatMap((each) => Array(each.kind === "sequence" ? each.max_length : 1).fill(each));
  }

  /**
   * Rows (a list of objects, or an object of columns) as `{rows, ids, numbers, unknown, shortened}`: ids Int32Array
   * [rows * K], numbers Float32Array [rows * M], by field how many values were unknown and how many rows were longer
   * than is read. Throws one InputError that names all faults.
   */
  encode(rows) {
    const { count, columns } = this.table(rows);
    const [width, numbersWidth] = [this.columns.length, this.numeric.length];
    const inputs = { rows: count, ids: new Int32Array(count * width), numbers: new Float32Array(count * numbersWidth) };
    const [unknown, shortened, faults] = [new Map(), new Map(), []]; // a field may be called __proto__
    const collect = (use) => {
      try {
        use();
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        faults.push(error.message);
      }
    };
    let at = 0;
    for (const field of this.lookedUp) {
      const start = at;
      at += field.kind === "sequence" ? field.max_length : 1;
      collect(() => {
        const found = field.kind === "sequence" ? this.sequence(field, columns[field.name]) : this.single(field, columns[field.name]);
        unknown.set(field.name, found.unknown);
        if (found.shortened !== undefined) shortened.set(field.name, found.shortened);
        found.place(inputs.ids, width, start);
      });
    }
    this.numeric.forEach((field, place) => {
      collect(() => scaled(field, columns[field.name]).forEach((value, row) => { inputs.numbers[row * numbersWidth + place] = value; }));
    });
    if (faults.length) throw new InputError(faults.join("\n"));
    return { ...inputs, unknown: Object.fromEntries(unknown), shortened: Object.fromEntries(shortened) };
  }

  /** The fields' columns of rows in either form. */
  table(rows) {
    const names = this.fields.map((each) => each.name);
    if (Array.isArray(rows)) {
      const given = new Set();
      rows.forEach((row, place) => {
        if (row === null || typeof row !== "object" || Array.isArray(row)) {
          throw new InputError(`row ${place} is a ${typeName(row)}, must map column names to values`);
        }
        for (const name of Object.keys(row)) given.add(name);
      });
      if (rows.length) checkFields(names, given);
      const own = (row, name) => (Object.hasOwn(row, name) ? row[name] : null);
      return { count: rows.length, columns: byName(names, (name) => rows.map((row) => own(row, name))) };
    }
    if (rows === null || typeof rows !== "object") {
      throw new InputError(`rows are a ${typeName(rows)}; allowed: a mapping of columns, a list of rows`);
    }
    checkFields(names, new Set(Object.keys(rows)));
    const columns = byName(names, (name) => {
      if (!Array.isArray(rows[name]) && !ArrayBuffer.isView(rows[name])) {
        throw new InputError(`column ${quoted(name)} is a ${typeName(rows[name])}, must hold a value for every row`);
      }
      return Array.from(rows[name]);
    });
    const lengths = names.map((name) => columns[name].length);
    if (new Set(lengths).size > 1) {
      throw new InputError(`columns differ in length: ${names.map((name, place) => `${name} ${lengths[place]}`).join(", ")}`);
    }
    return { count: lengths[0], columns };
  }

  single(field, column) {
    const values = ids(field, column, "row");
    const { codes, unknown } = this.codecs.get(field.name).codes(values, field.name);
    return { unknown, place: (target, width, start) => codes.forEach((code, row) => { target[row * width + start] = code; }) };
  }

  sequence(field, column) {
    const lists = asLists(field, column);
    const kept = lists.map((list) => list.slice(-field.max_length));
    const { codes, unknown } = this.codecs.get(field.name).codes(kept.flat(), field.name);
    const place = (target, width, start) => {
      let next = 0;
      kept.forEach((list, row) => list.forEach((_, slot) => { target[row * width + start + slot] = codes[next++] + 1; }));
    };
    return { unknown, shortened: lists.filter((list) => list.length > field.max_length).length, place };
  }

  /** Of every row the local ids of a sequence field, those beyond what the model reads too. */
  wholeLists(name, rows) {
    const field = this.fields.find((each) => each.name === name);
    const lists = asLists(field, this.table(rows).columns[name]);
    return lists.map((list) => this.codecs.get(name).codes(list, name).codes.map((code) => code + 1));
  }

  /** Throws unless a session may see these inputs: runtimes differ in what an id outside its table does. */
  check({ rows, ids: given, numbers }) {
    const faults = [
      ...form("ids", given, Int32Array, rows, this.columns.length),
      ...form("numbers", numbers, Float32Array, rows, this.numeric.length),
    ];
    if (!faults.length) faults.push(...this.faultyIds(rows, given), ...this.faultyNumbers(rows, numbers));
    const more = faults.length - FIELDS_NAMED;
    const told = more > 0 ? [...faults.slice(0, FIELDS_NAMED), `and ${more} more columns`] : faults;
    if (faults.length) throw new InputError(told.join("\n"));
  }

  faultyIds(rows, given) {
    const width = this.columns.length;
    return this.columns.flatMap((field, column) => {
      const wrong = [];
      for (let row = 0; row < rows; row++) if (given[row * width + column] >>> 0 >= field.size) wrong.push(row);
      if (!wrong.length) return [];
      const id = given[wrong[0] * width + column];
      return `field ${quoted(field.name)} (column ${column} of ids): id ${id} in row ${wrong[0]} is out of range, ` +
        `allowed 0..${field.size - 1}; ${wrong.length} of ${rows} rows are`;
    });
  }

  faultyNumbers(rows, numbers) {
    const width = this.numeric.length;
    return this.numeric.flatMap((field, column) => {
      const own = Array.from({ length: rows }, (_, row) => numbers[row * width + column]);
      const first = own.findIndex((value) => !Number.isFinite(value));
      if (first < 0) return [];
      const nan = own.filter(Number.isNaN).length;
      const infinite = own.filter((value) => Math.abs(value) === Infinity).length;
      return `field ${quoted(field.name)} (column ${column} of numbers): ${nan} NaN and ${infinite} infinite of ` +
        `${rows} values, the first in row ${first}; allowed: finite`;
    });
  }
}

function makeCodec(field) {
  if (field.encoding === "hash") return new Hashed(field.num_ids);
  return field.encoding === "identity" ? new Identity(field.num_ids) : new Vocabulary(field);
}

const byName = (names, make) => Object.fromEntries(names.map((name) => [name, make(name)]));

function checkFields(names, given) {
  const missing = names.filter((name) => !given.has(name));
  if (missing.length) {
    throw new InputError(missing.map((name) => `missing column ${quoted(name)}. ${nearest(name, given)}`).join("\n"));
  }
}

/** Canonical ids of a column; the error names the row, or the id of a list. */
function ids(field, values, what) {
  let place = -1; // one function for all values: most of them are in order
  const where = () => `column ${quoted(field.name)} (${field.kind}): ${what} ${place}`;
  return values.map((value) => {
    place += 1;
    return canonical(value, where);
  });
}

/** A column of sequences as lists of canonical ids; missing ones are empty. */
function asLists(field, column) {
  if (column.some((value) => typeof value === "string")) {
    const texts = ids(field, column, "row");
    if (field.separator === null) {
      throw new InputError(`column ${quoted(field.name)} is text, a sequence is a list, or text with a separator`);
    }
    return texts.map((text) => (text === null ? [] : String(text).split(field.separator).filter((part) => part !== "")));
  }
  const wrong = column.findIndex((value) => value !== null && value !== undefined && !Array.isArray(value));
  if (wrong >= 0) {
    const found = typeName(column[wrong]);
    throw new InputError(`column ${quoted(field.name)} (sequence): row ${wrong} holds a ${found}, must be a list`);
  }
  return column.map((list) => ids(field, list ?? [], "id"));
}

/** float32 [N]: ((sign(x) log(1 + |x|) or x) - mean) / std; missing numbers are 0, the train mean. */
function scaled(field, column) {
  const name = `column ${quoted(field.name)}`;
  const numbers = column.map((value, row) => {
    if (value === null || value === undefined) return null;
    if (["number", "boolean", "bigint"].includes(typeof value)) return Number(value);
    throw new InputError(`${name} (numeric): row ${row} holds a ${typeName(value)}, a number is needed`);
  });
  const [nan, infinite] = [Number.isNaN, (each) => Math.abs(each) === Infinity].map((is) => numbers.filter((each) => each !== null && is(each)).length);
  if (nan || infinite) {
    const parts = [[nan, "NaN"], [infinite, "infinite"]].filter(([count]) => count).map((part) => part.join(" "));
    throw new InputError(`${name}: ${parts.join(" and ")} of ${column.length} values. Allowed: finite or missing.`);
  }
  const result = Float32Array.from(numbers, (value) => {
    if (value === null) return 0;
    return ((field.log ? Math.sign(value) * Math.log1p(Math.abs(value)) : value) - field.mean) / field.std;
  });
  const large = result.filter((value) => !Number.isFinite(value)).length;
  if (large) throw new InputError(`${name}: ${large} values too large after scaling`);
  return result;
}

function form(name, array, Type, rows, width) {
  if (!(array instanceof Type)) return [`${name}: a ${array?.constructor?.name ?? typeName(array)}, must be ${Type.name}`];
  return array.length === rows * width ? [] : [`${name}: ${array.length} values, must be [${rows}, ${width}]`];
}
