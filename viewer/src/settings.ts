/** What the page remembers in this browser: the theme, how files are sorted, the last files. */

import { useSyncExternalStore } from "react";

import { BASE, type Order, type SortKey } from "./api";
import type { FileName } from "./names";

/** How many of the last files are kept. */
export const MOST_RECENT_FILES = 12;

export type Theme = "system" | "light" | "dark";

export interface Sorting {
  readonly sort: SortKey;
  readonly order: Order;
}

interface Setting<T> {
  readonly get: () => T;
  readonly set: (value: T) => void;
  readonly subscribe: (listener: () => void) => () => void;
}

export const theme = makeSetting<Theme>("asgihive.theme", "system", (value) =>
  value === "light" || value === "dark" ? value : "system",
);

export const sorting = makeSetting<Sorting>(
  "asgihive.sorting",
  { sort: "name", order: "ascending" },
  (value) => {
    const { sort, order } = (value ?? {}) as Partial<Sorting>;
    return {
      sort: sort === "modified" || sort === "size" ? sort : "name",
      order: order === "descending" ? order : "ascending",
    };
  },
);

/** The last files of this service, the newest first; other services have lists of their own. */
export const recentFiles = makeSetting<readonly FileName[]>(
  `asgihive.recent ${BASE}`,
  [],
  (value) =>
    Array.isArray(value)
      ? value.filter((each): each is FileName => typeof each === "string")
      : [],
);

/** Put a file at the head of the last files. */
export function rememberFile(file: FileName): void {
  const others = recentFiles.get().filter((each) => each !== file);
  recentFiles.set([file, ...others].slice(0, MOST_RECENT_FILES));
}

/** Take a file out of the last files, as where it is there no more. */
export function forgetFile(file: FileName): void {
  recentFiles.set(recentFiles.get().filter((each) => each !== file));
}

/** Return the value of a setting; a component that calls it follows each change. */
export function useSetting<T>(setting: Setting<T>): T {
  return useSyncExternalStore(setting.subscribe, setting.get);
}

function makeSetting<T>(key: string, initial: T, check: (value: unknown) => T): Setting<T> {
  const listeners = new Set<() => void>();
  const read = (): T => {
    try {
      const stored = localStorage.getItem(key);
      return stored === null ? initial : check(JSON.parse(stored));
    } catch {
      // What another program wrote there, or a browser that keeps nothing.
      return initial;
    }
  };
  let value = read();
  addEventListener("storage", (event) => {
    if (event.key === key) {
      value = read();
      listeners.forEach((listener) => listener());
    }
  });
  return {
    get: () => value,
    set: (next) => {
      value = next;
      try {
        localStorage.setItem(key, JSON.stringify(next));
      } catch {
        // The browser keeps nothing, so the setting lasts as long as the page.
      }
      listeners.forEach((listener) => listener());
    },
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
