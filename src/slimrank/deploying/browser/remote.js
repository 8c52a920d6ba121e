// The same model from a worker, so that the page stays free while it loads and scores.
import { InputError } from "./values.js";

/** Like `load` of slimrank.js, in a worker of its own. `ort` and `fetch` cannot be handed over. */
export async function loadInWorker(url, options = {}) {
  for (const name of ["ort", "fetch"]) {
    if (options[name]) throw new InputError(`${name} cannot be handed to a worker; use load of slimrank.js`);
  }
  const remote = new Remote(options.onProgress);
  try {
    const told = { ...options, onProgress: Boolean(options.onProgress) };
    remote.info = await remote.ask("load", new URL(url, location.href).href, told);
    return remote;
  } catch (error) {
    remote.fail(error);
    throw error;
  }
}

class Remote {
  constructor(onProgress) {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.asked = 0;
    this.ended = null;
    this.worker.addEventListener("message", ({ data }) => (data.progress ? onProgress(data.progress) : this.answer(data)));
    this.worker.addEventListener("error", ({ message = "worker.js is missing or damaged" }) => this.fail(new Error(`the worker could not run: ${message}`)));
    this.worker.addEventListener("messageerror", () => this.fail(new Error("the worker could not run: what it answered cannot be read")));
  }

  ask(method, ...args) {
    const id = ++this.asked;
    if (this.ended) return Promise.reject(this.ended);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      try {
        this.worker.postMessage({ id, method, args });
      } catch (error) { // what no message can hold: functions, symbols
        this.waiting.delete(id);
        reject(new InputError(`rows cannot be handed to a worker: ${error.message}`));
      }
    });
  }

  answer({ id, value, error }) {
    const asked = this.waiting.get(id);
    if (!asked) return; // it came after all was ended
    this.waiting.delete(id);
    const { resolve, reject } = asked;
    if (error) reject(error.isInput ? new InputError(error.message) : new Error(error.message));
    else resolve(value);
  }

  /** The worker ends; whoever waits, and whoever asks from now on, is told why. */
  fail(error) {
    this.worker.terminate();
    this.ended ??= error;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  rank(rows) {
    return this.ask("rank", rows);
  }

  score(inputs) {
    return this.ask("score", inputs);
  }

  topK(given, k, options) {
    return this.ask("topK", given, k, options);
  }

  values(name, most) {
    return this.ask("values", name, most);
  }

  close() {
    this.closed ??= this.end();
    return this.closed;
  }

  async end() {
    try {
      if (!this.ended) await this.ask("close");
    } finally {
      this.fail(new InputError("the model was closed"));
    }
  }
}
