/** The token of this tab: kept in sessionStorage, asked for once. */

import { ServiceError } from "./errors";

const KEY = "asgihive.token";

/** What the page shows while requests wait for a token. */
export interface TokenPrompt {
  /** Whether the token that was sent is not the right one. */
  readonly isWrong: boolean;
}

interface Waiting {
  readonly resume: () => void;
  readonly fail: (error: unknown) => void;
}

const waiting = new Set<Waiting>();
const listeners = new Set<() => void>();
let prompt: TokenPrompt | null = null;

/** Return the token of this tab, or null. */
export function getToken(): string | null {
  return sessionStorage.getItem(KEY);
}

/** Return the prompt that is open, or null. */
export function getTokenPrompt(): TokenPrompt | null {
  return prompt;
}

/** Call `listener` whenever the prompt opens or closes; return what ends that. */
export function subscribeToTokenPrompt(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Keep a token for this tab, and repeat the requests that wait for one. */
export function enterToken(token: string): void {
  sessionStorage.setItem(KEY, token);
  close((each) => each.resume());
}

/** Let the requests that wait for a token fail. */
export function refuseToken(): void {
  close((each) => each.fail(new ServiceError("token", "A token is needed.", 401)));
}

/**
 * Wait until the reader has entered a token.
 *
 * `sent` is the token that was refused, or null. Where another one was entered meanwhile, the
 * request can be repeated at once.
 */
export function askForToken(sent: string | null, signal?: AbortSignal): Promise<void> {
  if (getToken() !== sent) {
    return Promise.resolve();
  }
  if (sent !== null) {
    sessionStorage.removeItem(KEY);
  }
  return new Promise((resolve, reject) => {
    const each: Waiting = { resume: resolve, fail: reject };
    waiting.add(each);
    signal?.addEventListener("abort", () => {
      waiting.delete(each);
      reject(signal.reason);
    });
    if (prompt === null || sent !== null) {
      prompt = { isWrong: sent !== null };
      notify();
    }
  });
}

function close(answer: (each: Waiting) => void): void {
  const all = [...waiting];
  waiting.clear();
  prompt = null;
  notify();
  all.forEach(answer);
}

function notify(): void {
  listeners.forEach((listener) => listener());
}
