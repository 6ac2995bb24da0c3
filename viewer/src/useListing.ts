/** The entries of a directory, or what a search finds in it, page by page. */

import { useCallback, useEffect, useRef, useState } from "react";

import { type Entry, type ListQuery, listFiles } from "./api";
import { noteServiceGone, useConnection } from "./connection";
import { isAbort, type ServiceError, toServiceError } from "./errors";

/** Entries on the first page, which is there soon. */
const FIRST_PAGE = 100;
/** Entries on each page after it: the most that the service gives. */
const NEXT_PAGE = 1000;

export interface Listing {
  /** What was asked for; `entries` are of an older query until the first page is there. */
  readonly query: ListQuery;
  readonly entries: readonly Entry[];
  /** Whether `entries` are those of `query`. */
  readonly isCurrent: boolean;
  /** Whether a page is being fetched. */
  readonly isLoading: boolean;
  /** Whether there are pages that were not fetched yet. */
  readonly hasMore: boolean;
  /** Whether a search looked at everything; false where a bound of the service ended it. */
  readonly isComplete: boolean;
  readonly error: ServiceError | null;
  readonly loadMore: () => void;
  readonly reload: () => void;
}

interface Loaded {
  readonly key: string;
  readonly entries: readonly Entry[];
  readonly next: string | null;
  readonly isComplete: boolean;
  readonly error: ServiceError | null;
}

const NOTHING: Loaded = { key: "", entries: [], next: null, isComplete: true, error: null };

/** Return the listing of `query`, fetched anew when the service is back after an outage. */
export function useListing(query: ListQuery): Listing {
  const { returns } = useConnection();
  const [reloads, setReloads] = useState(0);
  const [loaded, setLoaded] = useState<Loaded>(NOTHING);
  const [isLoading, setLoading] = useState(true);
  const running = useRef<AbortController | null>(null);
  const key = JSON.stringify(query);

  const fetchPage = useCallback(
    async (after: string | null, before: readonly Entry[]) => {
      running.current?.abort();
      const controller = new AbortController();
      running.current = controller;
      setLoading(true);
      try {
        const limit = after === null ? FIRST_PAGE : NEXT_PAGE;
        const page = await listFiles(JSON.parse(key) as ListQuery, after, limit, controller.signal);
        const entries = before.length > 0 ? [...before, ...page.entries] : page.entries;
        const isComplete = page.complete !== false;
        setLoaded({ key, entries, next: page.next, isComplete, error: null });
      } catch (thrown) {
        if (isAbort(thrown) || controller.signal.aborted) {
          return;
        }
        const error = toServiceError(thrown);
        if (error.problem === "gone") {
          noteServiceGone();
        }
        setLoaded((old) =>
          old.key === key ? { ...old, error } : { ...NOTHING, key, error },
        );
      }
      setLoading(false);
    },
    [key],
  );

  useEffect(() => {
    void fetchPage(null, []);
    return () => running.current?.abort();
  }, [fetchPage, reloads, returns]);

  const isCurrent = loaded.key === key;
  const { entries, next, error } = loaded;
  const loadMore = useCallback(() => {
    if (isCurrent && !isLoading && next !== null && error === null) {
      void fetchPage(next, entries);
    }
  }, [entries, error, fetchPage, isCurrent, isLoading, next]);
  const reload = useCallback(() => setReloads((count) => count + 1), []);

  return {
    query,
    entries,
    isCurrent,
    isLoading,
    hasMore: isCurrent && next !== null,
    isComplete: loaded.isComplete,
    error: isCurrent ? error : null,
    loadMore,
    reload,
  };
}
