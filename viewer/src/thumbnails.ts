/** Small pictures of files: a few requests at once, the last ones kept. */

import { useEffect, useRef, useState } from "react";

import { type Entry, request } from "./api";
import { ServiceError } from "./errors";
import { waitUntilOpened } from "./opening";

/** Requests for pictures at one time, so that they do not delay what is opened. */
const MOST_AT_ONCE = 3;
/** Pictures that are kept, of some kB each. */
const MOST_KEPT = 1000;
/** How long a row must be seen before its picture is asked for, in milliseconds. */
const REST_MS = 80;
/** Height and width of a picture, in pixels. */
const SHAPE = "96,96";

type Start = () => void;

/** Addresses of pictures; null of a file that has none. */
const kept = new Map<string, string | null>();
const queue: Start[] = [];
let running = 0;

/**
 * Return a reference for the element that shows the picture of `entry`, and its address.
 *
 * The picture is asked for when the element is seen, and not any more when it is not. The
 * address is null until then, and where there is no picture.
 */
export function useThumbnail(
  entry: Pick<Entry, "encoded" | "kind" | "modified">,
): [(element: HTMLElement | null) => void, string | null] {
  const key = `${entry.encoded} ${entry.modified}`;
  const [element, setElement] = useState<HTMLElement | null>(null);
  const [, setCount] = useState(0);
  const controller = useRef<AbortController | null>(null);

  useEffect(() => {
    if (element === null || entry.kind !== "hdf5" || kept.has(key)) {
      return undefined;
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = () => {
      clearTimeout(timer);
      controller.current?.abort();
    };
    const observer = new IntersectionObserver(([seen]) => {
      stop();
      if (seen?.isIntersecting && !kept.has(key)) {
        const started = new AbortController();
        controller.current = started;
        timer = setTimeout(() => {
          void load(key, entry, started.signal).then(() => setCount((count) => count + 1));
        }, REST_MS);
      }
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      stop();
    };
  }, [element, entry, key]);

  return [setElement, kept.get(key) ?? null];
}

async function load(
  key: string,
  entry: Pick<Entry, "encoded">,
  signal: AbortSignal,
): Promise<void> {
  await waitUntilOpened();
  await waitForTurn(signal);
  try {
    if (!signal.aborted && !kept.has(key)) {
      const query = { file: entry.encoded, shape: SHAPE };
      const response = await request("image", query, {
        signal,
        asksForToken: false,
        priority: "low",
      });
      keep(key, URL.createObjectURL(await response.blob()));
    }
  } catch (error) {
    // A file without a picture stays so; a service that does not answer may do so later.
    if (error instanceof ServiceError && error.status >= 400 && error.status < 500) {
      keep(key, null);
    }
  } finally {
    running -= 1;
    queue.shift()?.();
  }
}

/** Wait until fewer than `MOST_AT_ONCE` pictures are asked for. */
function waitForTurn(signal: AbortSignal): Promise<void> {
  if (running < MOST_AT_ONCE) {
    running += 1;
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    const start = () => {
      running += 1;
      resolve();
    };
    queue.push(start);
    signal.addEventListener("abort", () => {
      const place = queue.indexOf(start);
      if (place >= 0) {
        queue.splice(place, 1);
        start();
      }
    });
  });
}

function keep(key: string, address: string | null): void {
  kept.set(key, address);
  const [oldest] = kept;
  if (kept.size > MOST_KEPT && oldest) {
    kept.delete(oldest[0]);
    if (oldest[1] !== null) {
      URL.revokeObjectURL(oldest[1]);
    }
  }
}
