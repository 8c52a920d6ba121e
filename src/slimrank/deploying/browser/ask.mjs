// Asks the folder it lies in from a terminal, with onnxruntime-web in Node (20 or later):
//
//   node ask.mjs < rows.json             {"scores": [..], "logits": [..], "unknown": {..}, "shortened": {..}}
//   node ask.mjs --top 5 < rows.json     the first five; of {"shared": .., "candidates": [..]} too
//   node ask.mjs --encode < rows.json    {"ids": [..], "numbers": [..], ..} without the model
//   node ask.mjs --tensors < feeds.json  outputs by name, for tensors as {"dtype", "shape", "data": base64}
//
// The runtime is that of ort/, else of the folder in ONNXRUNTIME_WEB, else an installed onnxruntime-web.
import { readFile, access } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Encoding } from "./encoding.js";
import { Folder } from "./files.js";
import { load } from "./slimrank.js";
import { TYPES } from "./tensors.js";
import { InputError, parseRows } from "./values.js";

const NO_RUNTIME = 3, WRONG_INPUT = 2;
const HERE = new URL("./", import.meta.url);
const MODULE = "ort.wasm.min.mjs", LOADER = "ort-wasm-simd-threaded";

async function fromDisk(address) {
  const path = fileURLToPath(address);
  return readFile(path).then((bytes) => new Response(bytes), () => new Response(null, { status: 404 }));
}

/** onnxruntime-web from elsewhere; undefined where the folder has its own. */
async function runtime() {
  if (await access(new URL(`ort/${MODULE}`, HERE)).then(() => true, () => false)) return undefined;
  const dist = process.env.ONNXRUNTIME_WEB ?? installed();
  if (!dist) {
    console.error(`onnxruntime-web is not installed, nor in ${fileURLToPath(HERE)}ort: npm install onnxruntime-web`);
    process.exit(NO_RUNTIME);
  }
  const at = (name) => pathToFileURL(`${dist}/${name}`).href;
  const ort = await import(at(MODULE));
  ort.env.wasm.wasmPaths = { mjs: at(`${LOADER}.mjs`) };
  ort.env.wasm.wasmBinary = await readFile(`${dist}/${LOADER}.wasm`);
  return ort;
}

function installed() {
  try {
    return dirname(createRequire(import.meta.url).resolve("onnxruntime-web"));
  } catch {
    return null;
  }
}

async function text() {
  const parts = [];
  for await (const part of process.stdin) parts.push(part);
  return Buffer.concat(parts).toString("utf8");
}

async function encode() {
  const folder = await Folder.open(HERE, { fetch: fromDisk });
  const [record] = await folder.bytes(["encoding.json"]);
  const encoding = new Encoding(JSON.parse(Buffer.from(record).toString()), folder.manifest.artifact);
  return encoding.encode(parseRows(await text()));
}

/** Outputs of the graph as they are, for tensors. */
async function tensors(model) {
  const feeds = Object.entries(JSON.parse(await text())).map(([name, { dtype, shape, data }]) => {
    const bytes = Buffer.from(data, "base64");
    return [name, { dtype, shape, data: new TYPES[dtype](Uint8Array.from(bytes).buffer) }];
  });
  const found = await model.runner.run(Object.fromEntries(feeds), model.folder.manifest.outputs);
  const told = Object.entries(found).map(([name, { type, dims, data }]) => {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return [name, { dtype: type, shape: dims, data: bytes.toString("base64") }];
  });
  return Object.fromEntries(told);
}

async function answer([option, value]) {
  if (option === "--encode") return encode();
  if (option && !["--tensors", "--top"].includes(option)) throw new InputError(`unknown option ${option}. Allowed: --encode, --tensors, --top K`);
  const model = await load(HERE, { fetch: fromDisk, ort: await runtime() });
  if (option === "--tensors") return tensors(model);
  const rows = parseRows(await text());
  return option ? model.topK(rows, Number(value)) : model.rank(rows);
}

try {
  const found = await answer(process.argv.slice(2));
  const plain = (_, value) => {
    if (typeof value === "bigint") return String(value);
    return ArrayBuffer.isView(value) ? Array.from(value) : value;
  };
  process.stdout.write(`${JSON.stringify(found, plain)}\n`, () => process.exit(0));
} catch (error) {
  console.error(error instanceof InputError ? error.message : error);
  process.exit(error instanceof InputError ? WRONG_INPUT : 1);
}
