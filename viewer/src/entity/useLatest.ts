/** A value that is loaded anew whenever what it depends on changes. */

import { useEffect, useState } from "react";

type State<T> = { value?: T; error?: unknown; isLoaded: boolean };

/**
 * Load a value anew whenever a dependency changes, and keep the one before meanwhile.
 *
 * @returns undefined until the first one is there.
 * @throws what loading has thrown.
 */
export function useLatest<T>(load: () => Promise<T>, dependencies: unknown[]): T | undefined {
  const [state, setState] = useState<State<T>>({ isLoaded: false });
  useEffect(() => {
    let isCurrent = true;
    load().then(
      (value) => isCurrent && setState({ value, isLoaded: true }),
      (error: unknown) => isCurrent && setState({ error, isLoaded: true }),
    );
    return () => {
      isCurrent = false;
    };
  }, dependencies);
  if (state.error !== undefined) {
    throw state.error;
  }
  return state.value;
}
