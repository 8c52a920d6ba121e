// The worker behind remote.js: one model, asked by messages `{id, method, args}`, answered by `{id, value | error}`.
import { InputError, load } from "./slimrank.js";

let model = null;

const METHODS = {
  async load(url, { onProgress, ...options }) {
    const tell = onProgress ? (progress) => postMessage({ progress }) : undefined;
    model = await load(url, { ...options, onProgress: tell });
    return model.info;
  },
  rank: (...args) => model.rank(...args),
  score: (...args) => model.score(...args),
  topK: (...args) => model.topK(...args),
  values: (...args) => model.values(...args),
  close: () => model.close(),
};

addEventListener("message", async ({ data: { id, method, args } }) => {
  try {
    postMessage({ id, value: await METHODS[method](...args) });
  } catch (error) {
    postMessage({ id, error: { isInput: error instanceof InputError, message: error.message } });
  }
});
