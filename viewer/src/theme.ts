/** Light or dark: what the reader chose, or else what the system has. */

import { useSyncExternalStore } from "react";

import { type Theme, theme } from "./settings";

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

/** Put the theme on the document, now and at each change. */
export function applyTheme(): void {
  const apply = () => {
    document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  };
  apply();
  subscribe(apply);
}

/** Return whether the page is dark; a component that calls it follows each change. */
export function useIsDark(): boolean {
  return useSyncExternalStore(subscribe, isDark);
}

/** Return the theme that a press of the switch chooses: as the system, then light, then dark. */
export function findNextTheme(current: Theme): Theme {
  const order: readonly Theme[] = ["system", "light", "dark"];
  return order[(order.indexOf(current) + 1) % order.length] ?? "system";
}

function isDark(): boolean {
  const chosen = theme.get();
  return chosen === "system" ? systemIsDark.matches : chosen === "dark";
}

function subscribe(listener: () => void): () => void {
  systemIsDark.addEventListener("change", listener);
  const unsubscribe = theme.subscribe(listener);
  return () => {
    systemIsDark.removeEventListener("change", listener);
    unsubscribe();
  };
}
