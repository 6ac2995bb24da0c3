/** Whether the service answers: noticed by any request that fails, then asked until it does. */

import { useSyncExternalStore } from "react";

import { isServiceThere } from "./api";

/** How long after a request without an answer the service is asked again, in milliseconds. */
const FIRST_WAIT_MS = 1000;
/** Each wait is twice as long as the one before, up to this. */
const LONGEST_WAIT_MS = 10_000;

export interface Connection {
  readonly isGone: boolean;
  /** How often the service came back; what failed meanwhile is asked again when it rises. */
  readonly returns: number;
}

const listeners = new Set<() => void>();
let connection: Connection = { isGone: false, returns: 0 };
let timer: ReturnType<typeof setTimeout> | undefined;
let wait = FIRST_WAIT_MS;

/** Return the state of the connection; a component that calls it follows each change. */
export function useConnection(): Connection {
  return useSyncExternalStore(subscribe, () => connection);
}

/** Note that a request had no answer, and ask until the service is back. */
export function noteServiceGone(): void {
  if (!connection.isGone) {
    wait = FIRST_WAIT_MS;
    change({ ...connection, isGone: true });
    schedule();
  }
}

/** Ask now whether the service is back. */
export async function askAgain(): Promise<void> {
  clearTimeout(timer);
  if (await isServiceThere()) {
    if (connection.isGone) {
      change({ isGone: false, returns: connection.returns + 1 });
    }
  } else {
    schedule();
  }
}

addEventListener("online", () => {
  if (connection.isGone) {
    void askAgain();
  }
});

function schedule(): void {
  clearTimeout(timer);
  timer = setTimeout(() => void askAgain(), wait);
  wait = Math.min(2 * wait, LONGEST_WAIT_MS);
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function change(next: Connection): void {
  connection = next;
  listeners.forEach((listener) => listener());
}
