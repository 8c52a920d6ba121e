import type { Finder, Info, LoadOptions, Model } from "./slimrank.js";

type Later<T> = { [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : T[K] };

/** Like `load` of slimrank.js, in a worker of its own: every method answers later, `info` is there at once. */
export function loadInWorker<M extends Model | Finder = Model>(url: string | URL, options?: Omit<LoadOptions, "ort" | "fetch">): Promise<Later<M> & { readonly info: Info }>;
