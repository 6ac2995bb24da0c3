/** A fetcher for h5web that asks for nothing that would stop the browser. */

import type { Fetcher } from "@h5web/app";

import { type DatasetSize, type EntityDocument, isTooLarge, listDatasets } from "./sizes";

export interface GuardedFetcher {
  /** For h5web: of what is too large there is no answer. */
  readonly fetch: Fetcher;
  /** For views of few points. */
  readonly fetchAll: Fetcher;
  /** What is known of the datasets that h5web has heard of, by path. */
  readonly datasets: ReadonlyMap<string, DatasetSize>;
}

type OnAsked = (dataset: DatasetSize, selection: string, isTooLarge: boolean) => void;
type OnLeft = (dataset: DatasetSize) => void;

/**
 * Return a fetcher that asks for no values over the bounds of `sizes`.
 *
 * It learns the shapes from the answers of `/meta`, which h5web asks for before any values.
 *
 * @param fetcher asks the service.
 * @param onAsked is told of which dataset values were asked for, and which.
 * @param onLeft is told that h5web no longer waits for a dataset that is too large.
 */
export function guardFetcher(
  fetcher: Fetcher,
  onAsked: OnAsked,
  onLeft: OnLeft,
): GuardedFetcher {
  const datasets = new Map<string, DatasetSize>();

  async function fetch(...[url, params, options]: Parameters<Fetcher>): Promise<ArrayBuffer> {
    if (url.endsWith("/data")) {
      const dataset = datasets.get(params.path ?? "/");
      if (dataset !== undefined) {
        const selection = params.selection ?? "";
        const isRefused = isTooLarge(dataset, selection);
        onAsked(dataset, selection, isRefused);
        if (isRefused) {
          return waitForAbort(options?.abortSignal, () => onLeft(dataset));
        }
      }
    }
    const answer = await fetcher(url, params, options);
    if (url.endsWith("/meta")) {
      const entity = JSON.parse(new TextDecoder().decode(answer)) as EntityDocument;
      for (const each of listDatasets(params.path ?? "/", entity)) {
        datasets.set(each.path, each);
      }
    }
    return answer;
  }

  return { fetch, fetchAll: fetcher, datasets };
}

/** Wait until h5web shows something else: to it, the values are still being loaded. */
function waitForAbort(signal: AbortSignal | undefined, onAbort: () => void): Promise<never> {
  return new Promise((_, reject) => {
    signal?.addEventListener("abort", () => {
      onAbort();
      reject(signal.reason);
    });
  });
}
