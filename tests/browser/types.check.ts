// Calls of the module as its types allow them, and some that they must refuse. Compiled, never run.
import { InputError, load, parseRows, type Finder, type Found, type Row } from "../../src/slimrank/deploying/browser/slimrank.js";
import { loadInWorker } from "../../src/slimrank/deploying/browser/remote.js";

const model = await load("model/", { onProgress: ({ loaded, total }) => void (loaded / total), executionProviders: ["webgpu", "wasm"] });
const rows: Row[] = [{ user: 7n, item: "tea", price: null, history: ["tea", 1] }, ...parseRows("[]")];
const scores: Float32Array = (await model.rank(rows)).scores;
const first: number | undefined = (await model.topK({ shared: { user: 7 }, candidates: rows }, 3)).unknown["user"];
const columns = await model.rank({ user: [7, 8], price: new Float64Array(2) });
const logits: Float32Array = await model.score({ rows: 1, ids: new Int32Array(5), numbers: new Float32Array(1) });
await model.close();

const remote = await loadInWorker(new URL("https://example.com/model/"), { cache: false });
const values: (string | number | bigint)[] = await remote.values("item");
const digest: string = remote.info.artifact;
const ranked: readonly { readonly index: number }[] = (await remote.topK({ shared: { user: 7 }, candidates: rows })).ranked;
const apart: Float32Array = (await (await loadInWorker("model/")).rank(rows)).scores;
const found: readonly Found[] = (await (await load<Finder>("model/")).topK(rows, 5, { leaveOutMet: false })).found;
const later: readonly Found[] = (await (await loadInWorker<Finder>("model/")).topK(rows, 5)).found;
const isOurs = (error: unknown): boolean => error instanceof InputError;
export { apart, columns, digest, first, found, isOurs, later, logits, ranked, scores, values };

// @ts-expect-error: no such provider
await load("model/", { executionProviders: ["cuda"] });
// @ts-expect-error: a value that is no id
await model.rank([{ user: { id: 7 } }]);
// @ts-expect-error: functions cannot be handed to a worker
await loadInWorker("model/", { fetch });
