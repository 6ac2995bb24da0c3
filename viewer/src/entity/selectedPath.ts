/** What h5web shows. It tells nobody, but says so to screen readers. */

import { type RefObject, useEffect, useState } from "react";

const SELECTED = '[role="treeitem"][aria-selected="true"]';
const INSPECTED = '[role="tablist"][aria-label="Viewer mode"] > :last-child[aria-checked="true"]';

/**
 * Follow the h5web below an element.
 *
 * @param onPath is called with each HDF5 path that is selected.
 * @returns whether h5web draws the entity, and does not list its metadata.
 */
export function useSelectedPath(
  container: RefObject<HTMLElement>,
  onPath: (path: string) => void,
): boolean {
  const [isDisplay, setIsDisplay] = useState(true);
  useEffect(() => {
    const element = container.current;
    if (element === null) {
      return undefined;
    }
    const observer = new MutationObserver(() => {
      const path = element.querySelector<HTMLElement>(SELECTED)?.dataset.path;
      if (path !== undefined) {
        onPath(path);
      }
      setIsDisplay(element.querySelector(INSPECTED) === null);
    });
    observer.observe(element, {
      subtree: true,
      childList: true,
      attributes: true,
      attributeFilter: ["aria-selected", "aria-checked"],
    });
    return () => observer.disconnect();
  }, [container, onPath]);
  return isDisplay;
}
