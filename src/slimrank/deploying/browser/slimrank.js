// A folder that `slimrank export ... --target web` wrote, as a model: raw rows in, scores out.
//
//   const model = await load("model/", { onProgress: ({ loaded, total }) => ... });
//   const { scores } = await model.rank([{ user: 7, item: "tea" }, ...]);
//
// In a worker the same, with the page left free: `loadInWorker` of remote.js.
import { Encoding } from "./encoding.js";
import { Folder } from "./files.js";
import { checkGolden } from "./tensors.js";
import { InputError, quoted, typeName } from "./values.js";

export { InputError, parseRows } from "./values.js";

const AT_ONCE = 4096; // rows a call of the runtime
// A module of one function with an operation on 128 bits: i8x16.popcnt.
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

/** Read and check the folder at `url`, and open its model. See slimrank.d.ts for the options. */
export async function load(url, options = {}) {
  if (!globalThis.WebAssembly?.validate(SIMD)) {
    throw new InputError("this browser has no WebAssembly SIMD, which the runtime needs; all of 2023 and later have");
  }
  const { milliseconds, lap } = laps();
  const folder = await Folder.open(url, options);
  const { manifest } = folder;
  for (const [pin, found] of [["digest", manifest.artifact], ["seal", manifest.seal]]) {
    if (options[pin] && options[pin] !== found) throw new InputError(`${pin}: the folder has ${quoted(found)}, the page asked for ${quoted(options[pin])}`);
  }
  const webgpu = await wantsWebGpu(options, folder);
  const parts = options.ort ? null : manifest.runtime[webgpu ? "webgpu" : "wasm"];
  const read = await readParts(folder, parts);
  lap("download");
  const encoding = new Encoding(readJson(taken(read, "encoding.json")), manifest.artifact);
  const ort = options.ort ?? (await runtime(folder, parts));
  configure(ort, folder, parts, taken(read, parts?.wasm), options.threads ?? 1);
  lap("runtime");
  const runner = await checkedRunner(ort, read, webgpu, folder, lap);
  try {
    await folder.forgetOthers();
    const finder = manifest.answers === "logit" ? null : await import("./finder.js");
    const model = finder ? await finder.Finder.open(folder, encoding, runner) : new Model(folder, encoding, runner);
    lap("ready");
    model.info = described(folder, encoding, runner, milliseconds);
    return model;
  } catch (error) {
    await runner.close();
    throw error;
  }
}

/** A model that scores rows. Made by `load`. */
export class Model {
  constructor(folder, encoding, runner) {
    this.folder = folder;
    this.encoding = encoding;
    this.runner = runner;
  }

  /** Probabilities and logits of raw rows, with what was unknown or too long by field. */
  async rank(rows) {
    const inputs = this.encoding.encode(rows);
    const logits = await this.score(inputs);
    return { scores: logits.map(sigmoid), logits, unknown: inputs.unknown, shortened: inputs.shortened };
  }

  /** Logits of encoded rows, `{rows, ids, numbers}`; ids and numbers are checked before the runtime sees them. */
  async score(inputs) {
    this.encoding.check(inputs);
    const found = new Float32Array(inputs.rows);
    for (let start = 0; start < inputs.rows; start += AT_ONCE) {
      const feeds = feedsOf(this.folder.manifest, this.encoding, inputs, start, Math.min(start + AT_ONCE, inputs.rows));
      found.set((await this.runner.run(feeds, ["logit"])).logit.data, start);
    }
    return found;
  }

  /** The first k of rows, or of `{shared, candidates}`: what all candidates share is said once. Best first. */
  async topK(given, k = 10) {
    checkK(k);
    const { scores, logits, unknown, shortened } = await this.rank(joined(given, this.encoding.fields));
    const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b).slice(0, k);
    return { ranked: order.map((index) => ({ index, score: scores[index], logit: logits[index] })), unknown, shortened };
  }

  /** Values of a field's vocabulary by falling frequency; none of a field without one. */
  values(name, most = 1000) {
    return (this.encoding.codecs.get(name)?.values ?? []).slice(0, most);
  }

  close() {
    return this.runner.close();
  }
}

/** Rows of what all candidates share and what is their own; other forms of rows as they are. */
function joined(given, fields) {
  const known = ["shared", "candidates"];
  const isForm = typeName(given) === "dict" && Object.hasOwn(given, "candidates") && Object.keys(given).every((key) => known.includes(key));
  if (!isForm || fields.some(({ name }) => name === "candidates")) return given;
  const { shared = {}, candidates } = given;
  if (!Array.isArray(candidates)) throw new InputError(`candidates are a ${typeName(candidates)}, must be a list of rows`);
  const check = (what, row) => {
    if (typeName(row) !== "dict") throw new InputError(`${what} is a ${typeName(row)}, must map column names to values`);
  };
  check("what is shared", shared);
  candidates.forEach((row, place) => check(`candidate ${place}`, row));
  const both = candidates.flatMap(Object.keys).find((name) => Object.hasOwn(shared, name));
  if (both) throw new InputError(`column ${quoted(both)} stands in what is shared and in a candidate`);
  return candidates.map((row) => ({ ...shared, ...row }));
}

export function checkK(k) {
  if (!Number.isInteger(k) || k < 1) throw new InputError(`k: got ${quoted(k)}, allowed 1 or more`);
}

/** Rows start..stop of inputs as feeds; ids with no more padding than the graph needs. */
export function feedsOf(manifest, encoding, { ids, numbers }, start, stop) {
  const width = encoding.columns.length, rows = stop - start;
  let own = ids.subarray(start * width, stop * width), kept = width;
  if (manifest.any_length) {
    const used = own.reduce((most, id, place) => (id ? Math.max(most, (place % width) + 1) : most), 0);
    kept = Math.min(width, Math.max(2, used));
    own = Int32Array.from({ length: rows * kept }, (_, place) => own[Math.floor(place / kept) * width + (place % kept)]);
  }
  const size = encoding.numeric.length;
  return {
    ids: { dtype: "int32", shape: [rows, kept], data: own },
    numbers: { dtype: "float32", shape: [rows, size], data: numbers.subarray(start * size, stop * size) },
  };
}

/** 1 / (1 + exp(-x)); the typed array that takes it rounds to float32. */
export function sigmoid(logit) {
  const decay = Math.exp(-Math.abs(logit));
  return (logit >= 0 ? 1 : decay) / (1 + decay);
}

let opening = Promise.resolve(); // sessions one by one: the runtime finds weights by their file's name, of whichever model

/** A session, asked one call after the other. */
class Runner {
  static async open(ort, read, provider, { graph, data }) {
    const options = {
      executionProviders: provider === "webgpu" ? ["webgpu", "wasm"] : ["wasm"],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3,
      ...(data ? { externalData: [{ path: data, data: read[data] }] } : {}),
    };
    const made = opening.then(() => ort.InferenceSession.create(read[graph], options));
    opening = made.catch(() => {});
    try {
      return new Runner(ort, await made, provider);
    } catch (error) {
      throw new InputError(`${graph}: onnxruntime-web ${ort.env.versions?.web} cannot load it: ${error.message}`);
    }
  }

  constructor(ort, session, provider) {
    this.ort = ort;
    this.session = session;
    this.provider = provider;
    this.last = Promise.resolve();
    this.closed = null;
  }

  /** Outputs by name of feeds by name (`{dtype, shape, data}`); those that the graph does not take are left out. */
  run(feeds, outputs) {
    if (this.closed) throw new InputError("the model was closed");
    const own = {};
    for (const name of this.session.inputNames) {
      if (feeds[name]) own[name] = new this.ort.Tensor(feeds[name].dtype, feeds[name].data, feeds[name].shape);
    }
    const found = this.last.then(() => this.session.run(own, outputs));
    this.last = found.catch(() => {}); // whoever asked hears of it
    return found;
  }

  /** Whether it answers the golden rows; says so, or throws. */
  check(manifest) {
    return checkGolden(manifest, (feeds, outputs) => this.run(feeds, outputs));
  }

  close() {
    this.closed ??= this.last.then(() => this.session.release());
    return this.closed;
  }
}

/** A session that answers the golden rows, on WebGPU where that is wanted and does; what was read for it is let go. */
async function checkedRunner(ort, read, webgpu, folder, lap) {
  const open = async (provider) => {
    const runner = await Runner.open(ort, read, provider, folder.manifest);
    lap("session");
    try {
      folder.note(await runner.check(folder.manifest));
    } catch (error) {
      await runner.close();
      throw error;
    }
    lap("golden");
    return runner;
  };
  const onWebGpu = webgpu && (await open("webgpu").catch((error) => folder.note(`WebGPU is not used, WebAssembly is: ${error.message}`)));
  const runner = onWebGpu || (await open("wasm"));
  for (const name of Object.keys(read)) delete read[name]; // the runtime has its own copy
  return runner;
}

async function wantsWebGpu({ executionProviders = ["wasm"] }, folder) {
  const unknown = executionProviders.find((each) => !["wasm", "webgpu"].includes(each));
  if (unknown) throw new InputError(`executionProviders: got ${quoted(unknown)}, allowed wasm, webgpu`);
  if (!executionProviders.includes("webgpu")) return false;
  const adapter = await globalThis.navigator?.gpu?.requestAdapter();
  if (!adapter) folder.note("this browser has no WebGPU; WebAssembly is used");
  else if (!folder.manifest.runtime.webgpu) folder.note("the folder has no WebGPU runtime; WebAssembly is used");
  return Boolean(adapter && folder.manifest.runtime.webgpu);
}

/**
 * By name the bytes of all that is used of the folder. Scripts, the runtime's and this module's own where they came
 * from there too, are checked and not kept: whoever runs a page runs what its host sends.
 */
async function readParts(folder, parts) {
  const { graph, data, modules } = folder.manifest;
  const names = ["encoding.json", graph, ...(data ? [data] : []), ...(parts?.verified ? [parts.wasm] : [])];
  const scripts = [...(parts?.verified ? [parts.loader, parts.module] : []), ...(import.meta.url.startsWith(folder.base.href) ? modules : [])];
  const found = await folder.bytes([...names, ...scripts], new Set(scripts));
  return Object.fromEntries(names.map((name, place) => [name, found[place]]));
}

/** The runtime's module. */
async function runtime(folder, { module }) {
  try {
    return await import(/* webpackIgnore: true */ /* @vite-ignore */ folder.address(module));
  } catch (error) {
    const where = folder.address(module);
    throw new InputError(`onnxruntime-web is not at ${where}: put its dist files there, or hand it over as \`ort\` (${error.message})`);
  }
}

function configure(ort, folder, parts, wasm, threads) {
  const { env } = ort;
  env.logLevel = "error";
  env.wasm.numThreads = threads;
  if (parts && parts.loader) env.wasm.wasmPaths = { mjs: folder.address(parts.loader), wasm: folder.address(parts.wasm) };
  if (wasm) env.wasm.wasmBinary = wasm;
}

function readJson(bytes) {
  return JSON.parse(new TextDecoder().decode(bytes));
}

/** An entry of what was read, which is no longer held there. */
function taken(read, name) {
  const found = read[name];
  delete read[name];
  return found;
}

function laps() {
  const milliseconds = {};
  let last = performance.now();
  const lap = (name) => {
    const now = performance.now();
    milliseconds[name] = (milliseconds[name] ?? 0) + now - last;
    last = now;
  };
  return { milliseconds, lap };
}

function described({ manifest, read, notes }, encoding, { provider }, milliseconds) {
  const { name, artifact, seal, answers } = manifest;
  const fields = encoding.fields.map(({ mean, std, ...rest }) => rest);
  return { name, artifact, seal, answers, provider, fields, files: read, notes, milliseconds };
}
