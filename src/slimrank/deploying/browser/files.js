// The files of an exported folder, each checked against the manifest before anything reads it: fetched with progress,
// kept in the browser's Cache API by their sha256. Left out: who wrote the manifest. A page that knows which it must be
// pins its `seal`; `digest` is only what the manifest says of itself, and guards against mix-ups.
import { InputError, quoted } from "./values.js";

export const MANIFEST = "slimrank-web.json";
const FORMAT = 1;
const CACHE = "slimrank-web";
const SEAL = /,"seal":"([0-9a-f]{64})"\}\s*$/;
const USUAL_BYTES = 64 << 10, MOST_BYTES = 16 << 20; // of a manifest: the most is far above any real one
const PART = 1 << 18; // bytes read at once

/** A folder, its manifest read and sealed. Made by `Folder.open`. */
export class Folder {
  /**
   * Read the manifest at `url` (the folder's). `options` as of `load`.
   */
  static async open(url, options) {
    if (!globalThis.crypto?.subtle) {
      throw new InputError("files cannot be checked here: the page needs a secure context (https, or localhost)");
    }
    const base = new URL(url, globalThis.location?.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    base.search = base.hash = "";
    const folder = new Folder(base, options);
    folder.manifest = await folder.readManifest();
    return folder;
  }

  constructor(base, { fetch = globalThis.fetch.bind(globalThis), onProgress, cache = true } = {}) {
    this.base = base;
    this.fetch = fetch;
    this.onProgress = onProgress;
    this.useCache = cache;
    this.read = []; // by file: name, bytes, wire, cached, milliseconds
    this.notes = [];
    this.puts = Promise.resolve();
    this.total = 0;
    this.loaded = 0;
  }

  address(name) {
    return new URL(name, this.base).href;
  }

  async readManifest() {
    const bytes = await this.receive(MANIFEST, { cache: "no-cache" }, USUAL_BYTES, MOST_BYTES);
    if (bytes.length > MOST_BYTES) throw new InputError(`${MANIFEST}: larger than ${MOST_BYTES} bytes, no manifest is`);
    const text = new TextDecoder().decode(bytes);
    const sealed = SEAL.exec(text);
    if (!sealed) throw new InputError(`${MANIFEST}: truncated, or no manifest of slimrank`);
    const body = new TextEncoder().encode(text.slice(0, sealed.index));
    if ((await sha256(body)) !== sealed[1]) throw new InputError(`${MANIFEST}: damaged, it does not match its own seal`);
    const manifest = JSON.parse(text);
    if (manifest.format !== FORMAT) {
      throw new InputError(`${MANIFEST}: format ${quoted(manifest.format)} is unknown; this module reads ${FORMAT}`);
    }
    return manifest;
  }

  /**
   * The bytes of the files `names`, in order; each is checked, or the error names it. Those of `passing` are
   * scripts that the browser itself fetches and runs: not kept, so that what is checked is what the host sends now.
   */
  async bytes(names, passing = new Set()) {
    for (const name of names) this.total += this.record(name).bytes;
    this.tell("");
    return Promise.all(names.map((name) => this.one(name, passing.has(name))));
  }

  record(name) {
    const record = Object.hasOwn(this.manifest.files, name) ? this.manifest.files[name] : null;
    if (!record) throw new InputError(`${MANIFEST}: lists no ${quoted(name)}`);
    return record;
  }

  async one(name, passes) {
    const record = this.record(name), started = performance.now();
    const cache = passes ? null : await this.openCache();
    const key = this.address(`.slimrank/${record.sha256}`);
    const kept = await this.fromCache(cache, key, record);
    if (kept) this.progress(name, record.bytes);
    const bytes = kept ?? (await this.download(name, record, passes));
    if (!kept) await this.keep(cache, key, bytes);
    const wire = kept ? 0 : wireBytes(this.address(name)) ?? bytes.length;
    this.read.push({ name, bytes: bytes.length, wire, cached: Boolean(kept), milliseconds: performance.now() - started });
    return bytes;
  }

  /** What the host sends; once more, past the browser's own cache, where that holds another version. */
  async download(name, record, passes) {
    const most = Math.max(...Object.values(this.manifest.files).map((each) => each.bytes)); // to say which one it is
    let fault;
    for (const cache of ["default", "reload"]) {
      const bytes = await this.receive(name, { cache }, record.bytes, most, (count) => this.progress(name, count));
      const first = fault;
      fault = await this.fault(name, bytes, record);
      if (!fault && first && passes) throw new InputError(`${name}: an older one may be running; reload the page`);
      if (!fault) return bytes;
      this.loaded -= bytes.length;
    }
    throw new InputError(fault);
  }

  async get(name, init) {
    let response;
    try {
      response = await this.fetch(this.address(name), init);
    } catch (error) {
      throw new InputError(`${name}: could not be fetched: ${error.message}`);
    }
    if (!response.ok) throw new InputError(`${name}: not found where the page looked (HTTP ${response.status})`);
    return response;
  }

  /** The bytes of a file, `usual` of them or up to `most`; where there are more, something longer than that. */
  async receive(name, init, usual, most, tell = () => {}) {
    const reader = readerOf((await this.get(name, init)).body);
    let bytes = new Uint8Array(usual), length = 0;
    const next = () => reader.read().catch((error) => {
      throw new InputError(`${name}: the connection broke after ${length} bytes: ${error.message}`);
    });
    for (let part = await next(); !part.done; part = await next()) {
      const end = length + part.value.length;
      tell(part.value.length);
      if (end > most) {
        await reader.cancel();
        return new Uint8Array(end);
      }
      if (end > bytes.length) {
        const longer = new Uint8Array(most);
        longer.set(bytes.subarray(0, length));
        bytes = longer;
      }
      bytes.set(part.value, length);
      length = end;
    }
    return bytes.subarray(0, length);
  }

  /** What is wrong with the bytes of a file; empty where they are what the manifest says. */
  async fault(name, bytes, record) {
    const found = await sha256(bytes);
    if (found === record.sha256) return "";
    const other = Object.entries(this.manifest.files).find(([, each]) => each.sha256 === found);
    if (other) return `${name}: swapped, it holds ${other[0]}`;
    const size = `${bytes.length} bytes where the manifest says ${record.bytes}`;
    if (bytes.length < record.bytes) return `${name}: truncated, ${size}`;
    if (bytes.length > record.bytes) return `${name}: damaged or of another version, more than the ${record.bytes} bytes of the manifest`;
    return `${name}: damaged or of another version, sha256 ${found.slice(0, 12)}... where the manifest says ${record.sha256.slice(0, 12)}...`;
  }

  // --- the browser's cache, without which all goes on

  async openCache() {
    if (!this.useCache) return null;
    try {
      return await globalThis.caches?.open(CACHE); // in a sandboxed frame the name alone throws
    } catch (error) {
      this.note(`nothing is kept in this browser: ${error.message}`);
      return null;
    }
  }

  async fromCache(cache, key, record) {
    try {
      const found = await cache?.match(key);
      if (!found) return null;
      const bytes = new Uint8Array(await found.arrayBuffer());
      if ((await sha256(bytes)) === record.sha256) return bytes;
      await cache.delete(key);
    } catch (error) {
      this.note(`what this browser keeps could not be read: ${error.message}`);
    }
    return null;
  }

  /** One after the other: each is copied on its way. */
  keep(cache, key, bytes) {
    this.puts = this.puts.then(() => cache?.put(key, new Response(bytes))).catch((error) => {
      const full = error.name === "QuotaExceededError" ? "the browser's storage is full" : error.message;
      this.note(`a file is not kept in this browser: ${full}`);
    });
    return this.puts;
  }

  /** Forget what this browser keeps of the folder and is no longer in its manifest. */
  async forgetOthers() {
    const cache = await this.openCache();
    const kept = new Set(Object.values(this.manifest.files).map((each) => this.address(`.slimrank/${each.sha256}`)));
    try {
      for (const request of (await cache?.keys()) ?? []) {
        if (request.url.startsWith(this.address(".slimrank/")) && !kept.has(request.url)) await cache.delete(request);
      }
    } catch (error) {
      this.note(`what this browser keeps of older versions could not be forgotten: ${error.message}`);
    }
  }

  // --- what is told meanwhile

  note(text) {
    if (!this.notes.includes(text)) this.notes.push(text);
  }

  progress(name, bytes) {
    this.loaded += bytes;
    this.tell(name);
  }

  tell(file) {
    this.onProgress?.({ file, loaded: this.loaded, total: this.total });
  }
}

/** What reads a body; where it can, into memory that is used again, as parts of large files pile up until they are collected. */
function readerOf(body) {
  let reader, memory = new ArrayBuffer(PART);
  try {
    reader = body.getReader({ mode: "byob" });
  } catch { // Safari, and bodies that a page made itself
    return body.getReader();
  }
  const read = async () => {
    const part = await reader.read(new Uint8Array(memory));
    memory = part.value?.buffer;
    return part;
  };
  return { read, cancel: () => reader.cancel() };
}

/** sha256 of bytes, in hex. */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The bytes that came over the network for an address, compressed as they were; undefined where no one tells. */
function wireBytes(address) {
  const { encodedBodySize, transferSize } = performance.getEntriesByName?.(address).at(-1) ?? {};
  return encodedBodySize ? transferSize && encodedBodySize : undefined; // nothing is transferred of what it has
}
