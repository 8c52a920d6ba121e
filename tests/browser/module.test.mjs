// The package's own tests: what can be told without a browser and without a model.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Encoding } from "../../src/slimrank/deploying/browser/encoding.js";
import { Folder, MANIFEST, sha256 } from "../../src/slimrank/deploying/browser/files.js";
import { firstOf } from "../../src/slimrank/deploying/browser/finder.js";
import { load, sigmoid } from "../../src/slimrank/deploying/browser/slimrank.js";
import { checkGolden, sampled, stored } from "../../src/slimrank/deploying/browser/tensors.js";
import { InputError, Vocabulary, canonical, crc32, nearest, parseRows } from "../../src/slimrank/deploying/browser/values.js";

const utf8 = (text) => new TextEncoder().encode(text);
const BASE = "https://example.com/model/";

const RECORD = {
  format: 1, artifact: "abc", catalogue: null,
  get fields() { // anew each time: an Encoding reads integers in place
    return [
      { name: "user", kind: "categorical", encoding: "vocabulary", size: 3, type: "int", values: [7, "9007199254740993"] },
      { name: "tags", kind: "sequence", encoding: "hash", size: 12, num_ids: 10, max_length: 2, separator: " " },
      { name: "price", kind: "numeric", log: false, mean: 1, std: 2 },
    ];
  },
};

test("crc32 is the one of everybody", () => {
  assert.equal(crc32("123456789"), 0xcbf43926);
  assert.equal(crc32(""), 0);
});

test("sigmoid is exact at its ends", () => {
  assert.deepEqual([0, 1000, -1000].map(sigmoid), [0.5, 1, 0]);
});

test("a name that is nearly right is found", () => {
  assert.equal(nearest("usr", ["user", "item"]), "Did you mean 'user'? Allowed: item, user.");
  assert.equal(nearest("zzz", ["user", "item"]), "Allowed: item, user.");
});

test("integers of JSON are exact, wherever they stand", () => {
  const [row] = parseRows('[{"a": 9007199254740993, "b": "9007199254740993", "c": [-12345678901234567890, 0.30000000000000004], "d": NaN, "NaN": -Infinity, "e": "a\\"NaN"}]');
  assert.deepEqual(row.a, 9007199254740993n);
  assert.deepEqual(row.b, "9007199254740993");
  assert.deepEqual(row.c, [-12345678901234567890n, 0.1 + 0.2]);
  assert.ok(Number.isNaN(row.d));
  assert.equal(row.NaN, -Infinity);
  assert.equal(row.e, 'a"NaN');
  assert.throws(() => parseRows("[{"), InputError);
});

test("long hostile text is read in the time of its length", () => {
  const long = 300_000, { fields: [field] } = RECORD; // with the square of it this test does not end
  const codes = (text) => Array.from(new Vocabulary(field).codes([text]).codes);
  assert.deepEqual(codes(`${"0".repeat(long)}x`), [0]);
  assert.deepEqual(codes(`+${"0".repeat(long)}7`), [1]);
  const escapes = '\\"'.repeat(long);
  assert.deepEqual(parseRows(`["${escapes}"]`), ['"'.repeat(long)]);
  for (const text of [`"${escapes}`, `"${escapes}\\`, `"${'"'.repeat(long)}`, `"${"\\a".repeat(20 * long)}`]) {
    assert.throws(() => parseRows(text), InputError);
  }
});

test("keys of Object's prototype are columns like others", () => {
  const fields = [{ ...RECORD.fields[0], name: "constructor" }];
  const encoding = new Encoding({ ...RECORD, fields }, "abc");
  assert.throws(() => encoding.encode([{ user: 7 }]), /missing column 'constructor'/);
  assert.deepEqual(Array.from(encoding.encode([{ constructor: 7 }]).ids), [1]);
  assert.deepEqual(Array.from(encoding.encode(parseRows('[{"__proto__": {"constructor": 7}, "constructor": 8}]')).ids), [0]);
});

test("a vocabulary that says another size, format or artifact is refused", () => {
  const other = { ...RECORD, fields: [{ ...RECORD.fields[0], size: 4 }] };
  assert.throws(() => new Encoding(other, "abc"), /has not the 4 ids it says/);
  assert.throws(() => new Encoding({ ...RECORD, format: 2 }, "abc"), /this module reads 1/);
  assert.throws(() => new Encoding(RECORD, "def"), /of another version/);
});

test("a field may be called __proto__, and is counted", () => {
  const encoding = new Encoding({ ...RECORD, fields: [{ ...RECORD.fields[0], name: "__proto__" }] }, "abc");
  const { unknown } = encoding.encode(parseRows('[{"__proto__": 8}]'));
  assert.deepEqual(Object.entries(unknown), [["__proto__", 1]]);
});

test("values are kept once", () => {
  const values = [7, "9007199254740993"];
  const encoding = new Encoding({ ...RECORD, fields: [{ ...RECORD.fields[0], values }] }, "abc");
  assert.equal(encoding.codecs.get("user").values, values);
  assert.deepEqual(values, [7, 9007199254740993n]);
  assert.ok(!encoding.fields.some((each) => "values" in each));
});

test("values of a vocabulary in every form", () => {
  const { codes, unknown } = new Vocabulary(RECORD.fields[0]).codes([7, "7", 9007199254740993n, "07", 8, null].map((each) => canonical(each)));
  assert.deepEqual(Array.from(codes), [1, 1, 2, 1, 0, 0]);
  assert.equal(unknown, 1);
});

test("a row of a sequence keeps its last values", () => {
  const encoding = new Encoding(RECORD, "abc");
  const { ids, shortened, numbers } = encoding.encode([{ user: 7, tags: "a b c", price: 5 }, { user: 8, tags: null, price: null }]);
  const code = (text) => 2 + (crc32(text) % 10);
  assert.deepEqual(Array.from(ids), [1, code("b"), code("c"), 0, 0, 0]);
  assert.deepEqual(Array.from(numbers), [2, 0]);
  assert.deepEqual(shortened, { tags: 1 });
});

test("a stored tensor is read back, and a sample is even", () => {
  assert.deepEqual(stored({ dtype: "int64", shape: [2], values: "7 -9007199254740993" }), BigInt64Array.of(7n, -9007199254740993n));
  const { values, width } = sampled(Int32Array.from({ length: 20 }, (_, place) => place), [2, 10]);
  assert.deepEqual(values, [0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 19]);
  assert.equal(width, 8);
});

const GOLDEN = {
  inputs: { ids: { dtype: "int32", shape: [2, 1], values: "0 1" } },
  outputs: { logit: { dtype: "float32", shape: [2, 1], values: "0.5 -2.0" } },
};
const answering = (...data) => async () => ({ logit: { dims: [2], data: Float32Array.from(data) } });

test("golden rows: near enough, noise of rounding, and what is neither", async () => {
  await checkGolden({ golden: GOLDEN, rounds: false }, answering(0.50004, -2.0001));
  await checkGolden({ golden: GOLDEN, rounds: true }, answering(0.52, -2));
  await assert.rejects(checkGolden({ golden: GOLDEN, rounds: false }, answering(0.52, -2)), /golden row 0: logit is 0.51/);
  await assert.rejects(checkGolden({ golden: GOLDEN, rounds: true }, answering(0.9, -2)), /golden row 0/);
  await assert.rejects(checkGolden({ golden: GOLDEN, rounds: true }, answering(0.5, NaN)), /golden row 1: logit is NaN/);
  await assert.rejects(checkGolden({ golden: GOLDEN, rounds: true }, async () => ({ logit: { dims: [3], data: Float32Array.of(1, 2, 3) } })), /has 3 numbers/);
});

test("a manifest is read with its seal, or not at all", async () => {
  const body = new TextEncoder().encode('{"format":1,"files":{}');
  const whole = `${new TextDecoder().decode(body)},"seal":"${await sha256(body)}"}\n`;
  const open = (text) => Folder.open("https://example.com/model", { fetch: async () => new Response(text) });
  assert.equal((await open(whole)).base.href, "https://example.com/model/");
  await assert.rejects(open(whole.slice(0, -20)), /truncated, or no manifest/);
  await assert.rejects(open(whole.replace("1", "3")), /damaged, it does not match its own seal/);
  await assert.rejects(open("<!doctype html>"), /no manifest of slimrank/);
  await assert.rejects(Folder.open("https://example.com/", { fetch: async () => { throw new TypeError("offline"); } }), /could not be fetched: offline/);
});

/** What fetches the `files` of a folder (text by name), under a manifest that lists them and is sealed. */
async function hosted(files, changes = {}) {
  const listed = {};
  for (const [name, text] of Object.entries(files)) listed[name] = { bytes: utf8(text).length, sha256: await sha256(utf8(text)) };
  const manifest = { format: 1, name: "tea", artifact: "abc", answers: "logit", graph: "model.onnx", data: null, golden: GOLDEN, rounds: false, runtime: {}, modules: [], files: listed, ...changes };
  const body = JSON.stringify(manifest).slice(0, -1), seal = await sha256(utf8(body));
  const all = { ...files, [MANIFEST]: `${body},"seal":"${seal}"}\n` };
  const fetch = async (address) => {
    const text = all[address.slice(BASE.length)];
    return new Response(text, { status: text === undefined ? 404 : 200 });
  };
  return { fetch, seal };
}

const FILES = { "encoding.json": JSON.stringify(RECORD), "model.onnx": "graph", "model.onnx.data": "weights" };

/** A runtime whose graph answers golden rows as they are in GOLDEN, and other rows with their price. */
function runtime(own = {}) {
  const told = { released: 0, atOnce: 0, opening: 0 };
  const session = {
    inputNames: ["ids", "numbers"],
    run: async ({ ids, numbers }) => ({ logit: { dims: [ids.dims[0]], data: numbers ? Float32Array.from(numbers.data) : Float32Array.of(0.5, -2) } }),
    release: async () => { told.released += 1; },
    ...own,
  };
  const create = async () => {
    told.opening += 1;
    told.atOnce = Math.max(told.atOnce, told.opening);
    await new Promise((resolve) => setTimeout(resolve, 5));
    told.opening -= 1;
    return session;
  };
  const Tensor = function (type, data, dims) { Object.assign(this, { type, data, dims }); };
  return { told, env: { wasm: {} }, Tensor, InferenceSession: { create } };
}

test("a folder may be pinned by its seal, which holds every file", async () => {
  const { fetch, seal } = await hosted(FILES);
  assert.equal((await load(BASE, { fetch, ort: runtime(), seal, digest: "abc" })).info.seal, seal);
  const other = await hosted({ ...FILES, "model.onnx": "forged" }); // and says to be the same artifact
  await load(BASE, { fetch: other.fetch, ort: runtime(), digest: "abc" });
  await assert.rejects(load(BASE, { fetch: other.fetch, ort: runtime(), seal }), /^InputError: seal: the folder has .*the page asked for/);
});

test("a query and a fragment of the folder's address are none of its files'", async () => {
  const { fetch } = await hosted(FILES);
  assert.equal((await Folder.open(`${BASE.slice(0, -1)}?v=2#top`, { fetch })).base.href, BASE);
});

test("what is closed says so, and is closed once", async () => {
  const { fetch } = await hosted(FILES);
  const ort = runtime(), model = await load(BASE, { fetch, ort });
  await Promise.all([model.close(), model.close()]);
  await model.close();
  assert.equal(ort.told.released, 1);
  await assert.rejects(model.rank([{ user: 7, tags: "", price: 1 }]), /^InputError: the model was closed/);
});

test("a session that answers otherwise is released", async () => {
  const { fetch } = await hosted(FILES);
  const ort = runtime({ run: async () => ({ logit: { dims: [2], data: Float32Array.of(9, 9) } }) });
  await assert.rejects(load(BASE, { fetch, ort }), /golden row 0/);
  assert.equal(ort.told.released, 1);
});

test("a session is released where what follows it fails", async () => {
  const golden = { inputs: {}, none: "made by hand" };
  const { fetch } = await hosted({ ...FILES, "encoding.json": JSON.stringify({ ...RECORD, catalogue: "tags" }) }, { answers: "vector", golden });
  const ort = runtime({ run: async () => { throw new Error("no item_vector"); } });
  await assert.rejects(load(BASE, { fetch, ort }), /no item_vector/);
  assert.equal(ort.told.released, 1);
});

test("sessions are opened one by one: weights are found by the name of their file", async () => {
  const { fetch } = await hosted(FILES, { data: "model.onnx.data" });
  const ort = runtime();
  await Promise.all([load(BASE, { fetch, ort }), load(BASE, { fetch, ort }), load(BASE, { fetch, ort })]);
  assert.equal(ort.told.atOnce, 1);
});

test("candidates are rows, and what they share may be nothing", async () => {
  const { fetch } = await hosted(FILES);
  const model = await load(BASE, { fetch, ort: runtime() });
  const candidates = [1, 3, 2].map((price) => ({ user: 7, tags: "", price }));
  assert.deepEqual((await model.topK({ candidates }, 2)).ranked.map(({ index }) => index), [1, 2]);
  const refused = (given, told) => assert.rejects(model.topK(given), { name: "InputError", message: told });
  await refused({ shared: 7, candidates }, /what is shared is a int/);
  await refused({ shared: null, candidates }, /what is shared is a NoneType/);
  await refused({ shared: {}, candidates: [candidates[0], "tea"] }, /candidate 1 is a str/);
  await refused({ shared: {}, candidates: 7 }, /candidates are a int/);
  await refused({ shard: {}, candidates }, /missing column 'user'/);
});

test("a column called candidates is a column", async () => {
  const fields = [{ ...RECORD.fields[0], name: "candidates" }, RECORD.fields[2]];
  const { fetch } = await hosted({ ...FILES, "encoding.json": JSON.stringify({ ...RECORD, fields }) });
  const model = await load(BASE, { fetch, ort: runtime() });
  assert.equal((await model.topK({ candidates: [7, 8], price: [1, 2] })).ranked[0].index, 1);
});

test("the first k of many, in one pass, are those of sorting all", () => {
  const scores = Float32Array.from({ length: 5000 }, (_, place) => (place * 7919) % 613);
  scores[17] = -Infinity;
  const all = Array.from(scores.keys()).filter((place) => place !== 17).sort((a, b) => scores[b] - scores[a] || a - b);
  for (const k of [1, 2, 10, 613, 4999, 5000, 9000]) assert.deepEqual(firstOf(scores, k), all.slice(0, k));
  assert.deepEqual(firstOf(Float32Array.from({ length: 100 }, (_, place) => place), 3), [99, 98, 97]);
  assert.deepEqual(firstOf(new Float32Array(100), 3), [0, 1, 2]);
});

test("items are found one query after the other", async () => {
  const field = { name: "tags", kind: "categorical", encoding: "vocabulary", type: "str", size: 6, values: ["a", "b", "c", "d", "e"] };
  const record = { ...RECORD, fields: [field], catalogue: "tags" };
  const { fetch } = await hosted({ ...FILES, "encoding.json": JSON.stringify(record) }, { answers: "scores", golden: { inputs: {}, none: "" } });
  const rows = [];
  const run = async ({ ids }) => {
    rows.push(ids.dims[0]);
    return { scores: { data: Float32Array.from({ length: 6 * ids.dims[0] }, (_, place) => [9, 1, 5, 3, 4, 2][place % 6]) } };
  };
  const model = await load(BASE, { fetch, ort: runtime({ run }) });
  const { found } = await model.topK([{ tags: "a" }, { tags: "b" }], 2);
  assert.deepEqual(found, Array(2).fill({ items: ["b", "d"], places: [1, 3], scores: [5, 4] }));
  assert.deepEqual(rows, [1, 1]);
});

/** A body in parts; where one is an error the connection breaks there. */
function broken(...parts) {
  const pull = (to) => {
    const part = parts.shift();
    if (part === undefined) to.close();
    else if (part instanceof Error) to.error(part);
    else to.enqueue(utf8(part));
  };
  return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }));
}

test("a connection that breaks is told with its file, the manifest's too", async () => {
  const { fetch } = await hosted(FILES);
  for (const name of [MANIFEST, "model.onnx"]) {
    const own = async (address, init) => (address.endsWith(name) ? broken("gr", new TypeError("gone")) : fetch(address, init));
    await assert.rejects(load(BASE, { fetch: own, ort: runtime() }), { name: "InputError", message: `${name}: the connection broke after 2 bytes: gone` });
  }
});

test("a large file is read right, in parts of whatever size", async () => {
  const text = Array.from({ length: 200_000 }, (_, place) => place).join(), size = utf8(text).length;
  const { fetch } = await hosted({ ...FILES, "model.onnx": text });
  for (const type of [undefined, "bytes"]) {
    let at = 0, asked = 0;
    const pull = (to) => {
      const part = utf8(text).subarray(at, (at += 1 + ((++asked * 7919) % 100_000) * 5));
      if (part.length) to.enqueue(part);
      else to.close(), to.byobRequest?.respond(0);
    };
    const own = async (address) => (address.endsWith("model.onnx") ? new Response(new ReadableStream({ type, pull })) : fetch(address));
    const folder = await Folder.open(BASE, { fetch: own });
    const [found] = await folder.bytes(["model.onnx"]);
    assert.deepEqual(found, utf8(text));
    assert.equal(folder.loaded, size);
  }
});

test("a manifest that does not end is not read to its end", async () => {
  let read = 0;
  const endless = () => new ReadableStream({ pull: (to) => { read += 1 << 20; to.enqueue(new Uint8Array(1 << 20)); } });
  await assert.rejects(load(BASE, { fetch: async () => new Response(endless()) }), /larger than 16777216 bytes/);
  assert.ok(read < 20 << 20);
});

test("what a page's onProgress throws is not told as a broken connection", async () => {
  const { fetch } = await hosted(FILES);
  const onProgress = ({ loaded }) => { if (loaded) throw new RangeError("of the page"); };
  await assert.rejects(load(BASE, { fetch, ort: runtime(), onProgress }), { name: "RangeError", message: "of the page" });
});

test("bytes of a file that is read again are not counted twice, and no other's are lost", async () => {
  const { fetch } = await hosted(FILES, { data: "model.onnx.data" });
  const own = (address, init) => {
    const slow = address.endsWith("model.onnx.data") || (address.endsWith("model.onnx") && init.cache === "default");
    if (!slow) return fetch(address, init);
    return new Promise((resolve) => setTimeout(() => resolve(address.endsWith("data") ? fetch(address) : broken("older")), address.endsWith("data") ? 0 : 20));
  };
  const told = [];
  await load(BASE, { fetch: own, ort: runtime(), onProgress: (each) => told.push(each) });
  assert.equal(told.at(-1).loaded, told.at(-1).total);
  assert.equal(told.at(-1).total, Object.values(FILES).reduce((sum, text) => sum + text.length, 0));
});

test("where the name of the browser's cache alone throws it goes on without", async () => {
  Object.defineProperty(globalThis, "caches", { configurable: true, get() { throw new Error("sandboxed"); } });
  try {
    const { fetch } = await hosted(FILES);
    assert.match((await load(BASE, { fetch, ort: runtime() })).info.notes.join(), /nothing is kept in this browser: sandboxed/);
  } finally {
    delete globalThis.caches;
  }
});

test("files are kept one after the other", async () => {
  let atOnce = 0, most = 0;
  const put = async () => {
    most = Math.max(most, ++atOnce);
    await new Promise((resolve) => setTimeout(resolve, 5));
    atOnce -= 1;
  };
  globalThis.caches = { open: async () => ({ put, match: async () => undefined, keys: async () => [] }) };
  try {
    const { fetch } = await hosted(FILES, { data: "model.onnx.data" });
    await load(BASE, { fetch, ort: runtime() });
    assert.equal(most, 1);
  } finally {
    delete globalThis.caches;
  }
});
