/** Keys that work wherever the focus is, other than in a field that takes text. */

import { useEffect, useRef } from "react";

export type Shortcuts = Readonly<Record<string, (event: KeyboardEvent) => void>>;

/** Call the function of `shortcuts` whose name is the `key` of a pressed key. */
export function useShortcuts(shortcuts: Shortcuts): void {
  const current = useRef(shortcuts);
  useEffect(() => {
    current.current = shortcuts;
  });
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      const isModified = event.ctrlKey || event.metaKey || event.altKey;
      const shortcut = current.current[event.key];
      if (shortcut && !isModified && !event.defaultPrevented && !isElsewhere(event)) {
        shortcut(event);
      }
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
}

/** Return whether a key belongs to a field, or to a dialog that is open. */
function isElsewhere(event: KeyboardEvent): boolean {
  if (document.querySelector("dialog[open]")) {
    return true;
  }
  const target = event.target;
  if (!(target instanceof HTMLElement)) {
    return false;
  }
  return target.isContentEditable || target.matches("input:not([type=checkbox]), textarea, select");
}
