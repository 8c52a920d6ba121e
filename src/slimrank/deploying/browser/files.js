// The files of an exported folder, each checked against the manifest before anything reads it: fetched with progress,
// kept in the browser's Cache API by their sha256. Left out: who signed the manifest; pin its artifact with `digest`.
import { InputError, quoted } from "./values.js";

export const MANIFEST = "slimrank-web.json";
const FORMAT = 1;
const CACHE = "slimrank-web";
const SEAL = /,"seal":"([0-9a-f]{64})"\}\s*$/;
const MOST_BYTES = 16 << 20; // of a manifest: far above any real one

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
    this.total = 0;
    this.loaded = 0;
  }

  address(name) {
    return new URL(name, this.base).href;
  }

  async readManifest() {
    const response = await this.get(MANIFEST, { cache: "no-cache" });
    const bytes = new Uint8Array(await response.arrayBuffer());
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

  /** The bytes of the files `names`, in order; each is checked, or the error names it. Those of `passing` are not kept. */
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
    const bytes = kept ?? (await this.download(name, record));
    if (!kept) await this.keep(cache, key, bytes);
    const wire = kept ? 0 : wireBytes(this.address(name)) ?? bytes.length;
    this.read.push({ name, bytes: bytes.length, wire, cached: Boolean(kept), milliseconds: performance.now() - started });
    return bytes;
  }

  /** What the host sends; once more, past the browser's own cache, where that holds another version. */
  async download(name, record) {
    let fault;
    for (const cache of ["default", "reload"]) {
      const before = this.loaded;
      const bytes = await this.receive(name, record, { cache });
      fault = await this.fault(name, bytes, record);
      if (!fault) return bytes;
      this.loaded = before;
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

  /** The bytes of a file; of one that is longer than it may be no more than the longest has, to say which that is. */
  async receive(name, record, init) {
    const reader = (await this.get(name, init)).body.getReader();
    const most = Math.max(...Object.values(this.manifest.files).map((each) => each.bytes));
    let bytes = new Uint8Array(record.bytes), length = 0;
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const end = length + part.value.length;
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
        this.progress(name, part.value.length);
      }
    } catch (error) {
      throw new InputError(`${name}: the connection broke after ${length} of ${record.bytes} bytes: ${error.message}`);
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
    if (!this.useCache || !globalThis.caches) return null;
    try {
      return await caches.open(CACHE);
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

  async keep(cache, key, bytes) {
    try {
      await cache?.put(key, new Response(bytes));
    } catch (error) {
      const full = error.name === "QuotaExceededError" ? "the browser's storage is full" : error.message;
      this.note(`a file is not kept in this browser: ${full}`);
    }
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

/** sha256 of bytes, in hex. */
export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The bytes that came over the network for an address, compressed as they were; undefined where no one tells. */
function wireBytes(address) {
  return performance.getEntriesByName?.(address).at(-1)?.encodedBodySize || undefined;
}
