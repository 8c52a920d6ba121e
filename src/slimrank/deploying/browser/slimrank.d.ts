/** An id: whole numbers are integers however they are written; beyond 2^53 they are given as bigint or text. */
export type Id = number | bigint | string | boolean | null | undefined;
export type Value = Id | readonly Id[];
/** A row by column; a key that is absent is a missing value. */
export type Row = Readonly<Record<string, Value>>;
/** Rows as a list of objects, or as an object of columns of equal length. */
export type Rows = readonly Row[] | Readonly<Record<string, readonly Value[] | ArrayLike<number>>>;

/** Something that was given is wrong: rows, a file, the browser. The message says what, and what is allowed. */
export class InputError extends Error {
  readonly name: "InputError";
}

export interface Progress {
  /** The file that bytes came of; empty at the start. */
  readonly file: string;
  readonly loaded: number;
  readonly total: number;
}

export type Provider = "wasm" | "webgpu";

export interface LoadOptions {
  onProgress?: (progress: Progress) => void;
  /** What may run the graph, `["wasm"]` where nothing is said; with "webgpu" that is used where it is there. */
  executionProviders?: readonly Provider[];
  /** onnxruntime-web, where the page has it already: `import * as ort from "onnxruntime-web/wasm"`. */
  ort?: unknown;
  /** Whether files are kept in the browser's Cache API; true where nothing is said. */
  cache?: boolean;
  /** The digest of the artifact that the folder must say it holds: against mix-ups, not against who forges a folder. */
  digest?: string;
  /**
   * The seal at the end of the folder's slimrank-web.json: sha256 over all of it, which holds the sha256 of every file.
   * Where this module comes from elsewhere (npm), no other model, vocabulary or runtime of `ort/` passes.
   */
  seal?: string;
  /** Threads of the runtime, 1 where nothing is said; more need a page that is cross-origin isolated. */
  threads?: number;
  /** What fetches instead of the browser's own. */
  fetch?: (address: string, init?: RequestInit) => Promise<Response>;
}

export interface LoadedFile {
  readonly name: string;
  readonly bytes: number;
  /** Bytes that came over the network, compressed as they were; 0 where the browser had them. */
  readonly wire: number;
  readonly cached: boolean;
  readonly milliseconds: number;
}

export interface FieldInfo {
  readonly name: string;
  readonly kind: "categorical" | "numeric" | "sequence";
  readonly encoding?: "vocabulary" | "hash" | "identity";
  readonly size?: number;
  readonly type?: "int" | "str";
  readonly num_ids?: number;
  readonly max_length?: number;
  readonly separator?: string | null;
  readonly log?: boolean;
}

export interface Info {
  readonly name: string;
  readonly artifact: string;
  readonly seal: string;
  readonly answers: "logit" | "scores" | "vector";
  readonly provider: Provider;
  readonly fields: readonly FieldInfo[];
  readonly files: readonly LoadedFile[];
  /** What is worth knowing: no WebGPU, storage full, golden rows answered. */
  readonly notes: readonly string[];
  readonly milliseconds: Readonly<Record<"download" | "runtime" | "session" | "golden" | "ready", number>>;
}

/** By field: how many values were not in the vocabulary, and how many rows were longer than is read. */
export interface Told {
  readonly unknown: Readonly<Record<string, number>>;
  readonly shortened: Readonly<Record<string, number>>;
}

export interface Ranking extends Told {
  /** Probabilities, in the order of the rows. */
  readonly scores: Float32Array;
  readonly logits: Float32Array;
}

export interface Ranked {
  /** Place of the row in what was given. */
  readonly index: number;
  readonly score: number;
  readonly logit: number;
}

export interface Found {
  readonly items: readonly (string | number | bigint)[];
  readonly places: readonly number[];
  readonly scores: readonly number[];
}

/** Encoded rows: ids [rows * K] local to their fields, numbers [rows * M]. */
export interface Inputs {
  readonly rows: number;
  readonly ids: Int32Array;
  readonly numbers: Float32Array;
}

interface Opened {
  readonly info: Info;
  /** Values of a field's vocabulary by falling frequency. */
  values(name: string, most?: number): (string | number | bigint)[];
  close(): Promise<void>;
}

/** A model that scores rows. */
export interface Model extends Opened {
  rank(rows: Rows): Promise<Ranking>;
  /** Logits of encoded rows; throws InputError where an id is out of range or a number is not finite. */
  score(inputs: Inputs): Promise<Float32Array>;
  /** The first k, best first, of rows or of candidates whose shared columns are said once. */
  topK(given: Rows | { readonly shared: Row; readonly candidates: readonly Row[] }, k?: number): Promise<Told & { readonly ranked: readonly Ranked[] }>;
}

/** A model that answers with items of its catalogue. */
export interface Finder extends Opened {
  rank(rows: Rows): Promise<never>;
  topK(rows: Rows, k?: number, options?: { readonly leaveOutMet?: boolean }): Promise<Told & { readonly found: readonly Found[] }>;
}

/**
 * Read and check the folder that `slimrank export ARTIFACT --target web` wrote, and open its model;
 * `load<Finder>` where that answers with items. Throws InputError: the browser has no WebAssembly SIMD, a file is missing, damaged, truncated, swapped or of another
 * version, or the model does not answer its golden rows as it did when it was exported.
 */
export function load<M extends Model | Finder = Model>(url: string | URL, options?: LoadOptions): Promise<M>;

/** Rows from JSON text, exactly: whole numbers beyond 2^53 become bigints, and NaN is read. */
export function parseRows(text: string): Row[];
