/** The whole page: the list of files, and the file that is open. */

import { useCallback, useEffect, useMemo, useRef, useState } from "react";

import type { Entry, ListQuery } from "../api";
import { askAgain, useConnection } from "../connection";
import { goTo, type Place, refinePlace, usePlace } from "../location";
import { type FileName, ROOT, showLastSegment } from "../names";
import { sorting, theme, useSetting } from "../settings";
import { findNextTheme } from "../theme";
import { useListing } from "../useListing";
import { placeOfDirectory } from "./Breadcrumbs";
import { Browser, goUp } from "./Browser";
import type { FileListHandle } from "./FileList";
import { FilePanel } from "./FilePanel";
import { findPlace } from "./FileRow";
import { Header } from "./Header";
import { RecentFiles } from "./RecentFiles";
import { ShortcutsDialog } from "./ShortcutsDialog";
import { TokenDialog } from "./TokenDialog";
import { useDebounced } from "./useDebounced";
import { useShortcuts } from "./useShortcuts";

/** How long no key is pressed before a search begins, in milliseconds. */
const SEARCH_DELAY_MS = 150;

export function Page() {
  const place = usePlace();
  const { file, dir } = place;
  const [isListShown, setListShown] = useState(true);
  const [hasKeys, setKeys] = useState(false);
  const [search, setSearch] = useState("");
  const [isRecursive, setRecursive] = useState(false);
  const searchRef = useRef<HTMLInputElement>(null);
  const listRef = useRef<FileListHandle>(null);

  const { sort, order } = useSetting(sorting);
  const words = useDebounced(search.trim(), SEARCH_DELAY_MS);
  const query = useMemo<ListQuery>(
    () => ({ dir, search: words, recursive: words !== "" && isRecursive, sort, order }),
    [dir, words, isRecursive, sort, order],
  );
  const listing = useListing(query);

  useEffect(() => {
    setSearch("");
  }, [dir]);
  useTitle(place);

  const setPath = useCallback(
    (path: string) => goTo({ dir, file, path }),
    [dir, file],
  );
  const openRoot = useCallback(() => refinePlace({ dir, file, path: "/" }), [dir, file]);
  const leaveFile = () => {
    goTo(placeOfDirectory(dir));
    listRef.current?.focus();
  };

  const step = (by: number) => {
    const next = findNeighbour(listing.entries, file, by);
    if (next) {
      goTo(findPlace(next, dir));
    }
  };
  useShortcuts({
    "/": (event) => {
      event.preventDefault();
      setListShown(true);
      // The field may be hidden until then.
      requestAnimationFrame(() => searchRef.current?.select());
    },
    "?": () => setKeys(true),
    j: () => step(1),
    k: () => step(-1),
    u: () => (file === null ? goUp(dir) : leaveFile()),
    b: () => setListShown((isShown) => !isShown),
    t: () => theme.set(findNextTheme(theme.get())),
    Escape: () => listRef.current?.focus(),
  });

  return (
    <div
      className="page"
      data-has-file={file !== null || undefined}
      data-list-hidden={(file !== null && !isListShown) || undefined}
    >
      <a className="skip" href="#main">
        Go to the {file === null ? "files" : "file"}
      </a>
      <Header
        place={place}
        isListShown={isListShown}
        onToggleList={() => setListShown((isShown) => !isShown)}
        onBack={leaveFile}
        onShowKeys={() => setKeys(true)}
      />
      <ConnectionBar />
      <div className="columns">
        <div
          className="side own"
          role={file === null ? "main" : "complementary"}
          aria-label="Files and folders"
          id={file === null ? "main" : undefined}
        >
          {file === null && dir === ROOT && search === "" && <RecentFiles />}
          <Browser
            listing={listing}
            openFile={file}
            search={search}
            isRecursive={isRecursive}
            onSearch={setSearch}
            onRecursive={setRecursive}
            searchRef={searchRef}
            listRef={listRef}
          />
        </div>
        {file !== null && (
          <main className="main" id="main" tabIndex={-1}>
            <FilePanel
              place={{ ...place, file }}
              onPathChange={setPath}
              onOpenRoot={openRoot}
            />
          </main>
        )}
      </div>
      {hasKeys && <ShortcutsDialog onClose={() => setKeys(false)} />}
      <TokenDialog />
    </div>
  );
}

/** Says that the service does not answer, as long as it does not. */
function ConnectionBar() {
  const { isGone, returns } = useConnection();
  return (
    <div role="status" className="connection">
      {isGone && (
        <div className="bar own" data-kind="gone">
          <span>The service does not answer. The page asks again by itself.</span>
          <button type="button" onClick={() => void askAgain()}>
            Try now
          </button>
        </div>
      )}
      {!isGone && returns > 0 && <span className="hidden">The service is back.</span>}
    </div>
  );
}

/** Return the file `by` files behind the open one in the list, if there is one. */
function findNeighbour(
  entries: readonly Entry[],
  file: FileName | null,
  by: number,
): Entry | undefined {
  const files = entries.filter((each) => each.kind === "hdf5");
  const index = files.findIndex((each) => each.encoded === file);
  return index < 0 ? (by > 0 ? files[0] : undefined) : files[index + by];
}

/** Put what is shown into the title of the page, the most telling first. */
function useTitle({ dir, file, path }: Place): void {
  useEffect(() => {
    const shown = file ?? dir;
    const parts = shown === ROOT ? [] : [showLastSegment(shown)];
    if (file !== null && path !== "/") {
      parts.unshift(path);
    }
    document.title = [...parts, "asgihive"].join(" · ");
  }, [dir, file, path]);
}
