// A model that answers with items: raw queries in, the first k of its catalogue out. A graph gives the scores of all
// items, or a vector that is compared with every item's. Left out: stored indexes; the search is exact.
import { checkK, feedsOf } from "./slimrank.js";
import { quoted, InputError } from "./values.js";

const ITEMS_AT_ONCE = 1 << 14;

/** Finds items. Made by `load`. */
export class Finder {
  static async open(folder, encoding, runner) {
    const finder = new Finder(folder, encoding, runner);
    if (folder.manifest.answers === "vector") finder.vectors = await finder.itemVectors();
    return finder;
  }

  constructor(folder, encoding, runner) {
    this.folder = folder;
    this.encoding = encoding;
    this.runner = runner;
    this.field = encoding.fields.find((each) => each.name === encoding.catalogue);
    this.first = this.field.kind === "sequence" ? 2 : 1;
    this.count = this.field.size - this.first;
  }

  /** By query the first k items, best first, with places in the catalogue and scores; those met before are left out. */
  async topK(rows, k = 10, { leaveOutMet = true } = {}) {
    checkK(k);
    const inputs = this.encoding.encode(rows);
    this.encoding.check(inputs);
    const met = leaveOutMet && this.field.kind === "sequence" ? this.encoding.wholeLists(this.field.name, rows) : null;
    const found = [];
    for (let row = 0; row < inputs.rows; row++) { // one by one: scores of a large catalogue are many
      const scores = await this.scores(feedsOf(this.folder.manifest, this.encoding, inputs, row, row + 1));
      for (const id of met?.[row] ?? []) if (id >= this.first) scores[id - this.first] = -Infinity;
      const places = firstOf(scores, k);
      found.push({ items: places.map((place) => this.item(place)), places, scores: places.map((place) => scores[place]) });
    }
    return { found, unknown: inputs.unknown, shortened: inputs.shortened };
  }

  async rank() {
    throw new InputError(`${quoted(this.folder.manifest.name)} answers with items, not with a score for each row: topK asks it`);
  }

  /** The scores of all items for one query, by place in the catalogue. */
  async scores(feeds) {
    const output = this.folder.manifest.answers;
    const { data } = (await this.runner.run({ ...feeds, items: itemsOf(0, 1, this.first) }, [output]))[output];
    return output === "scores" ? data.subarray(this.first) : this.products(data);
  }

  products(query) {
    const found = new Float32Array(this.count), dim = query.length;
    for (let place = 0; place < this.count; place++) {
      let sum = 0; // in float64, so that the order of items does not hang on the order of summation
      for (let at = 0; at < dim; at++) sum += query[at] * this.vectors[place * dim + at];
      found[place] = sum;
    }
    return found;
  }

  async itemVectors() {
    const parts = [];
    for (let start = 0; start < this.count; start += ITEMS_AT_ONCE) {
      const items = itemsOf(start, Math.min(ITEMS_AT_ONCE, this.count - start), this.first);
      const width = this.encoding.columns.length, size = this.encoding.numeric.length;
      const nothing = { ids: new Int32Array(width), numbers: new Float32Array(size) };
      const feeds = { ...feedsOf(this.folder.manifest, this.encoding, nothing, 0, 1), items };
      parts.push((await this.runner.run(feeds, ["item_vector"])).item_vector.data);
    }
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((start, part) => (all.set(part, start), start + part.length), 0);
    return all;
  }

  /** The raw value of the item at a place. */
  item(place) {
    return this.encoding.codecs.get(this.field.name).values?.[place] ?? place;
  }

  values(name, most = 1000) {
    return (this.encoding.codecs.get(name)?.values ?? []).slice(0, most);
  }

  close() {
    return this.runner.close();
  }
}

function itemsOf(start, count, first) {
  return { dtype: "int32", shape: [count], data: Int32Array.from({ length: count }, (_, place) => first + start + place) };
}

/** The places of the k largest scores, falling, of equal ones the lower place first; none that was left out. */
export function firstOf(scores, k) {
  const falling = (a, b) => scores[b] - scores[a] || a - b;
  let best = [], least = -Infinity;
  for (let place = 0; place < scores.length; place++) {
    if (!(scores[place] > least)) continue;
    best.push(place);
    if (best.length < 2 * k) continue;
    best = best.sort(falling).slice(0, k);
    least = scores[best[k - 1]];
  }
  return best.sort(falling).slice(0, k);
}
