/** What h5web needs to ask this service: a fetcher with the token, and links for exports. */

import { AbortError, type DataProviderApi, type Fetcher, type FetcherOptions } from "@h5web/app";

import { BASE, formatLink, request } from "./api";
import { ServiceError } from "./errors";
import type { FileName } from "./names";
import { noteOpened } from "./opening";

type GetExportURL = NonNullable<DataProviderApi["getExportURL"]>;

/** How often a request is repeated whose file changed while it was read. */
const MOST_REPEATS = 3;
/** How long to wait before that where the service does not say, in milliseconds. */
const REPEAT_MS = 500;

/**
 * Return the fetcher for one file.
 *
 * h5web names the file as text, which loses bytes that are not UTF-8: the fetcher puts the
 * encoded name in its place. `onError` is told of each answer that is not OK.
 */
export function makeFetcher(file: FileName, onError: (error: ServiceError) => void): Fetcher {
  return async (url, params, options = {}) => {
    const route = url.slice(BASE.length + 1);
    try {
      const response = await requestAgain(route, { ...params, file }, options.abortSignal);
      return await readBody(response, options);
    } catch (error) {
      const reason: unknown = options.abortSignal?.reason;
      if (options.abortSignal?.aborted && reason instanceof AbortError) {
        throw reason;
      }
      if (error instanceof ServiceError) {
        onError(error);
      }
      throw error;
    } finally {
      if (route === "data") {
        noteOpened();
      }
    }
  };
}

/** Return the links of h5web's export menu, which carry no headers, so the token is in the query. */
export function makeExportLinks(file: FileName): GetExportURL {
  return (format, dataset, selection, builtInExporter) => {
    if (builtInExporter) {
      return async () => new Blob([builtInExporter()]);
    }
    return new URL(formatLink("data", { file, path: dataset.path, format, selection }));
  };
}

async function requestAgain(
  route: string,
  query: Record<string, string>,
  signal: AbortSignal | undefined,
): Promise<Response> {
  for (let repeats = 0; ; repeats += 1) {
    try {
      return await request(route, query, { signal });
    } catch (error) {
      const isWorthIt = error instanceof ServiceError && error.problem === "changed";
      if (!isWorthIt || repeats === MOST_REPEATS) {
        throw error;
      }
      const wait = error.retryAfter === null ? REPEAT_MS : error.retryAfter * 1000;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** Return the body, and tell h5web's progress bar how much of it has come. */
async function readBody(response: Response, { onProgress }: FetcherOptions): Promise<ArrayBuffer> {
  const length = Number.parseInt(response.headers.get("Content-Length") ?? "", 10);
  if (!onProgress || !response.body || Number.isNaN(length)) {
    return response.arrayBuffer();
  }
  let received = 0;
  const counted = response.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        received += chunk.length;
        onProgress(received / Math.max(received, length));
        controller.enqueue(chunk);
      },
    }),
  );
  return new Response(counted).arrayBuffer();
}
