// The package's own tests: what can be told without a browser and without a model.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Encoding } from "../../src/slimrank/deploying/browser/encoding.js";
import { Folder, sha256 } from "../../src/slimrank/deploying/browser/files.js";
import { sigmoid } from "../../src/slimrank/deploying/browser/slimrank.js";
import { checkGolden, sampled, stored } from "../../src/slimrank/deploying/browser/tensors.js";
import { InputError, Vocabulary, canonical, crc32, nearest, parseRows } from "../../src/slimrank/deploying/browser/values.js";

const RECORD = {
  format: 1, artifact: "abc", catalogue: null,
  fields: [
    { name: "user", kind: "categorical", encoding: "vocabulary", size: 3, type: "int", values: [7, "9007199254740993"] },
    { name: "tags", kind: "sequence", encoding: "hash", size: 12, num_ids: 10, max_length: 2, separator: " " },
    { name: "price", kind: "numeric", log: false, mean: 1, std: 2 },
  ],
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
