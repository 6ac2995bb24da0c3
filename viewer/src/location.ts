/** What is shown, as it stands in the address of the page: `?dir=&file=&path=`. */

import { useSyncExternalStore } from "react";

import { type FileName, findParent, parseFileName, ROOT } from "./names";

/** A place that can be sent to a colleague. */
export interface Place {
  readonly dir: FileName;
  /** The file that is open, or null. */
  readonly file: FileName | null;
  /** The HDF5 path in it. */
  readonly path: string;
}

const listeners = new Set<() => void>();
let place = parsePlace(location.search);

addEventListener("popstate", () => show(parsePlace(location.search)));

/** Return the place in the query of an address. */
export function parsePlace(search: string): Place {
  // URLSearchParams would decode bytes that are not UTF-8 to U+FFFD.
  const fields = new Map<string, string>();
  for (const field of search.replace(/^\?/, "").split("&")) {
    const [name = "", ...value] = field.split("=");
    fields.set(name, value.join("=").replaceAll("+", "%20"));
  }
  const asked = parseFileName(fields.get("file") ?? "");
  const file = asked === "" ? null : (asked.replace(/^\/+/, "") as FileName);
  const dir = fields.get("dir");
  const path = new URLSearchParams(search).get("path") ?? "/";
  return {
    dir: dir === undefined ? (file === null ? ROOT : findParent(file)) : trim(parseFileName(dir)),
    file,
    path: path.startsWith("/") ? path : `/${path}`,
  };
}

/** Return the address of a place, relative to the page. */
export function formatPlace({ dir, file, path }: Place): string {
  const fields: string[] = [];
  // The directory of the file goes without saying.
  if (file === null ? dir !== ROOT : dir !== findParent(file)) {
    fields.push(`dir=${dir}`);
  }
  if (file !== null) {
    fields.push(`file=${file}`);
    if (path !== "/") {
      fields.push(`path=${encodeURIComponent(path).replaceAll("%2F", "/")}`);
    }
  }
  return fields.length > 0 ? `?${fields.join("&")}` : location.pathname;
}

/** Return the place that the page shows; a component that calls it follows each change. */
export function usePlace(): Place {
  return useSyncExternalStore(subscribe, () => place);
}

/** Go to a place, so that the browser's Back returns to the one before. */
export function goTo(next: Place): void {
  if (formatPlace(next) !== formatPlace(place)) {
    history.pushState(null, "", formatPlace(next));
    show(next);
  }
}

/** Say more exactly where the page is, without an entry in the history. */
export function refinePlace(next: Place): void {
  if (formatPlace(next) !== formatPlace(place)) {
    history.replaceState(null, "", formatPlace(next));
    show(next);
  }
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function show(next: Place): void {
  place = next;
  listeners.forEach((listener) => listener());
}

function trim(name: FileName): FileName {
  return name.replace(/^\/+|\/+$/g, "") as FileName;
}
