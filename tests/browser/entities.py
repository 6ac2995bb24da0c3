"""Opening every entity of a file in h5web, by its tree, in the page at /view/ or in h5web alone."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from tests.browser.browsing import PATIENCE, Tab

# All in the browser: to ask it over and over from here takes longer than h5web does.
_OPEN_ALL = """async ({paths, patience}) => {
  const LOADING = '[data-testid^="Loading"]';
  const PROBLEMS = '[class*="_error_"], [class*="_detailedError_"]';
  const find = path => [...document.querySelectorAll('[role="treeitem"]')]
    .find(each => each.dataset.path === path);
  const area = () =>
    document.querySelector('#h5w-main-area, [data-panel-id="h5w-main-area"]');
  const frame = () => new Promise(done => requestAnimationFrame(done));
  async function until(ask) {
    for (const end = performance.now() + patience; performance.now() < end; await frame()) {
      const answer = ask();
      if (answer) {
        return answer;
      }
    }
    return undefined;
  }
  // The entity is chosen, and neither its values nor the tree are waited for.
  function read(path) {
    const main = area();
    // Over a bound the page draws a view of its own, below which h5web waits for values.
    const reduced = document.querySelector(".reduced");
    const isLoading = reduced
      ? reduced.querySelector("canvas, table, [role=img]") === null
      : document.querySelector(LOADING) !== null;
    // react-three-fiber fails where a canvas is taken away before three.js has it.
    const isDrawn = [...main?.querySelectorAll("canvas") ?? []].every(each => each.dataset.engine);
    const isChosen = find(path)?.ariaSelected === "true";
    if (!isChosen || !main || isLoading || !isDrawn || main.innerText === "") {
      return undefined;
    }
    const outermost = [...main.querySelectorAll(PROBLEMS)].filter(
      each => each.parentElement.closest(PROBLEMS) === null,
    );
    const notices = document.querySelectorAll('.notice[role="alert"], .bar[role="alert"]');
    return {
      boxes: [...outermost, ...notices].map(each => each.textContent),
      isEmpty: main.innerText.includes("Nothing to display"),
    };
  }
  // Between two parts that load there may be a moment when none does.
  async function settle(path) {
    let before;
    return until(() => {
      const state = read(path);
      const text = JSON.stringify(state);
      const isSame = state !== undefined && text === before;
      before = text;
      return isSame ? state : undefined;
    });
  }
  const found = {};
  await until(() => find("/"));
  for (const path of paths) {
    const steps = path.split("/").slice(1, -1).map((_, n, all) =>
      "/" + all.slice(0, n + 1).join("/"));
    for (const step of steps) {
      const group = await until(() => find(step) ?? !document.querySelector(LOADING));
      if (group instanceof Element && group.ariaExpanded === "false") {
        group.click();
        await settle(step);
      }
    }
    const item = await until(() => find(path) ?? !document.querySelector(LOADING));
    if (!(item instanceof Element)) {
      found[path] = {boxes: [], isEmpty: false, isMissing: true};
      continue;
    }
    item.click();
    const state = await settle(path);
    found[path] = state
      ? {...state, isMissing: false}
      : {boxes: ["still loading: " + area()?.innerText], isEmpty: false, isMissing: false};
  }
  return found;
}"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What h5web shows of an entity.

    Attributes:
        boxes: the texts of its boxes with errors.
        isEmpty: whether it says that there is nothing to display.
        isMissing: whether its tree does not have the entity.
    """

    boxes: list[str]
    isEmpty: bool  # noqa: N815  # as the script in the browser names it
    isMissing: bool  # noqa: N815


def list_entities(url: str, file: str) -> list[str]:
    """Return the path of every entity of a file, as the service tells them."""
    asked = {"file": file, "resolve_links": "none"}
    answer = httpx.get(f"{url}/paths", params=asked, timeout=PATIENCE, trust_env=False)
    paths: list[str] = answer.raise_for_status().json()
    return paths


def open_entities(tab: Tab, address: str, file: str, paths: list[str]) -> dict[str, Shown]:
    """Open one entity after the other.

    Args:
        tab: of a browser.
        address: of a page with h5web, with a slash at its end.
        file: below the directory that is served.
        paths: of entities, each group before its members.

    Returns:
        What is shown of each path.
    """
    tab.open(f"{address}?{urlencode({'file': file}, quote_via=quote)}")
    asked = {"paths": paths, "patience": PATIENCE * 1000}
    found: dict[str, Any] = tab.page.evaluate(_OPEN_ALL, asked)
    tab.open("about:blank")  # which does not mind that the service ends
    return {path: Shown(**shown) for path, shown in found.items()}
