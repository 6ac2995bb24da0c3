/** The typed client of the service, whose routes lie one level above the page. */

import { readError, ServiceError } from "./errors";
import type { FileName } from "./names";
import { askForToken, getToken } from "./token";

/** The address of the service, without a slash at the end. */
export const BASE = new URL("..", document.baseURI).href.replace(/\/$/, "");

export type EntryKind = "directory" | "hdf5" | "file";
export type SortKey = "name" | "modified" | "size";
export type Order = "ascending" | "descending";

/** A directory or a file, as `/files` lists it. */
export interface Entry {
  /** The last segment, to show. */
  readonly name: string;
  /** The whole path, to show. */
  readonly file: string;
  /** The whole path, to ask with. */
  readonly encoded: FileName;
  readonly kind: EntryKind;
  /** In bytes; null of a directory. */
  readonly size: number | null;
  /** ISO 8601 in UTC. */
  readonly modified: string | null;
}

export interface EntryPage {
  readonly dir: string;
  readonly entries: readonly Entry[];
  /** What to give as `after` for the next page; null on the last one. */
  readonly next: string | null;
  /** False where a search ended at a bound of the service. */
  readonly complete?: boolean;
}

export interface ListQuery {
  readonly dir: FileName;
  /** Words that names must hold, in any case of letters; "" asks for all names. */
  readonly search: string;
  /** Whether the directories below are searched, too. */
  readonly recursive: boolean;
  readonly sort: SortKey;
  readonly order: Order;
}

/** Values of query parameters; a list repeats its name, undefined leaves the name out. */
export type Query = Readonly<
  Record<string, string | number | boolean | readonly string[] | undefined>
>;

export interface RequestOptions {
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Whether a 401 asks the reader for a token and then repeats the request; true unless given. */
  readonly asksForToken?: boolean;
  /** "low" for what the reader does not wait for. */
  readonly priority?: RequestPriority;
}

/** Return the query of a request; `file` and `dir` are names that are percent-encoded already. */
export function formatQuery(query: Query): string {
  const fields: string[] = [];
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? (value as readonly string[]) : [value]) {
      if (each !== undefined) {
        const isName = name === "file" || name === "dir";
        fields.push(`${name}=${isName ? String(each) : encodeURIComponent(String(each))}`);
      }
    }
  }
  return fields.length > 0 ? `?${fields.join("&")}` : "";
}

/** Return the address of an answer, for links and pictures, which carry no headers. */
export function formatLink(route: string, query: Query): string {
  return `${BASE}/${route}${formatQuery({ ...query, token: getToken() ?? undefined })}`;
}

/**
 * Ask the service, with the token of this tab.
 *
 * Raises ServiceError for each answer that is not OK, and where no answer comes; an AbortError
 * where `signal` aborted.
 */
export async function request(
  route: string,
  query: Query,
  options: RequestOptions = {},
): Promise<Response> {
  const { signal, headers, asksForToken = true, priority = "auto" } = options;
  for (;;) {
    const token = getToken();
    const authorization: Record<string, string> =
      token === null ? {} : { Authorization: `Bearer ${token}` };
    const response = await send(`${BASE}/${route}${formatQuery(query)}`, {
      headers: { ...headers, ...authorization },
      priority,
      ...(signal ? { signal } : {}),
    });
    if (response.ok) {
      return response;
    }
    if (response.status !== 401 || !asksForToken) {
      throw await readError(response);
    }
    await askForToken(token, signal);
  }
}

/** Ask the service for a JSON document. */
export async function requestJson<T>(
  route: string,
  query: Query,
  options?: RequestOptions,
): Promise<T> {
  const response = await request(route, query, {
    ...options,
    headers: { Accept: "application/json", ...options?.headers },
  });
  return (await response.json()) as T;
}

/** Return a page of at most `limit` entries of a directory, or of what a search finds in it. */
export function listFiles(
  query: ListQuery,
  after: string | null,
  limit: number,
  signal?: AbortSignal,
): Promise<EntryPage> {
  const { dir, search, recursive, sort, order } = query;
  const isSearch = search !== "";
  return requestJson<EntryPage>(
    "files",
    {
      dir: dir === "" ? undefined : dir,
      search: isSearch ? search : undefined,
      recursive: isSearch && recursive ? true : undefined,
      sort,
      order,
      limit,
      after: after ?? undefined,
    },
    { signal },
  );
}

/** Return whether the service answers; never raises. */
export async function isServiceThere(signal?: AbortSignal): Promise<boolean> {
  try {
    await request("", {}, { signal, asksForToken: false });
    return true;
  } catch (error) {
    return error instanceof ServiceError && error.problem !== "gone";
  }
}

async function send(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (init.signal?.aborted) {
      throw error;
    }
    throw new ServiceError("gone", "The service does not answer.");
  }
}
