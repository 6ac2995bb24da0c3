/** A value that is loaded anew whenever what it depends on changes. */

import { useEffect, useState } from "react";

type State<T> = { value?: T; error?: unknown; isLoaded: boolean };

/**
 * Load a value anew whenever a dependency changes, and keep the one before meanwhile.
 *
 * @param load is told by its signal that another value is wanted.
 * @param dependencies of the value.
 * @returns undefined until the first one is there.
 * @throws what loading has thrown.
 */
export function useLatest<T>(load: (signal: AbortSignal) => Promise<T>, dependencies: unknown[]): T | undefined {
  const [state, setState] = useState<State<T>>({ isLoaded: false });
  useEffect(() => {
    const controller = new AbortController();
    const { signal } = controller;
    load(signal).then(
      (value) => !signal.aborted && setState({ value, isLoaded: true }),
      (error: unknown) => !signal.aborted && setState({ error, isLoaded: true }),
    );
    return () => controller.abort();
  }, dependencies);
  if (state.error !== undefined) {
    throw state.error;
  }
  return state.value;
}
