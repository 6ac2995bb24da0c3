/** The folders and files: search, sorting, the list, and why there may be nothing in it. */

import type { KeyboardEvent, ReactNode, RefObject } from "react";

import type { SortKey } from "../api";
import { formatCount } from "../format";
import { Icon } from "../icons";
import { goTo } from "../location";
import { type FileName, findParent, ROOT, showFileName, showLastSegment } from "../names";
import { sorting, useSetting } from "../settings";
import type { Listing } from "../useListing";
import { PlaceLink, placeOfDirectory } from "./Breadcrumbs";
import { FileList, type FileListHandle } from "./FileList";
import { describeDirectoryError, Notice, RetryButton } from "./Notice";

export interface BrowserProps {
  readonly listing: Listing;
  readonly openFile: FileName | null;
  /** What stands in the field; the listing follows a moment later. */
  readonly search: string;
  readonly isRecursive: boolean;
  readonly onSearch: (search: string) => void;
  readonly onRecursive: (isRecursive: boolean) => void;
  readonly searchRef: RefObject<HTMLInputElement>;
  readonly listRef: RefObject<FileListHandle>;
}

export function Browser(props: BrowserProps) {
  const { listing, openFile, search, isRecursive, onSearch, onRecursive, searchRef } = props;
  const { entries, isCurrent, isLoading } = listing;

  const pressKey = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || (event.key === "Enter" && entries.length > 0)) {
      event.preventDefault();
      props.listRef.current?.focus();
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (search === "") {
        props.listRef.current?.focus();
      } else {
        onSearch("");
      }
    }
  };

  return (
    <section className="browser">
      <search className="search">
        <label className="search-field">
          <Icon name="search" />
          <span className="hidden">Search names</span>
          <input
            ref={searchRef}
            type="search"
            value={search}
            placeholder="Search names"
            autoComplete="off"
            spellCheck={false}
            aria-keyshortcuts="/"
            onChange={(event) => onSearch(event.target.value)}
            onKeyDown={pressKey}
          />
          {search === "" ? (
            <kbd aria-hidden="true">/</kbd>
          ) : (
            <button type="button" className="plain" onClick={() => onSearch("")}>
              <Icon name="close" />
              <span className="hidden">Clear the search</span>
            </button>
          )}
        </label>
        <label className="search-below">
          <input
            type="checkbox"
            checked={isRecursive}
            onChange={(event) => onRecursive(event.target.checked)}
          />
          in folders below
        </label>
      </search>
      <SortBar />
      <div className="list-frame" aria-busy={isLoading} data-stale={!isCurrent || undefined}>
        {hasList(listing) ? (
          <FileList
            ref={props.listRef}
            listing={listing}
            openFile={openFile}
          />
        ) : (
          <Reason {...props} />
        )}
      </div>
      <Footer listing={listing} />
    </section>
  );
}

/** Return whether there is a list to show, if only of the query before. */
function hasList({ entries, isCurrent, isLoading }: Listing): boolean {
  return entries.length > 0 || (isLoading && !isCurrent);
}

const COLUMNS: readonly (readonly [SortKey, string, string])[] = [
  ["name", "Name", "name"],
  ["modified", "Date", "date"],
  ["size", "Size", "size"],
];

/** Sorts by name, date or size; a press of the one that is on turns the order. */
function SortBar() {
  const { sort, order } = useSetting(sorting);
  return (
    <div className="sort" role="group" aria-label="Sort by">
      {COLUMNS.map(([key, label, name]) => {
        const isOn = key === sort;
        const turned = order === "ascending" ? "descending" : "ascending";
        // The newest and the largest are what one looks for.
        const first = key === "name" ? "ascending" : "descending";
        return (
          <button
            key={key}
            type="button"
            className={`plain sort-${key}`}
            aria-pressed={isOn}
            aria-label={isOn ? `${label}, ${order}` : label}
            title={`Sort by ${name}`}
            onClick={() => sorting.set({ sort: key, order: isOn ? turned : first })}
          >
            {label}
            {isOn && <span aria-hidden="true">{order === "ascending" ? "↑" : "↓"}</span>}
          </button>
        );
      })}
    </div>
  );
}

/** Says how many there are, and what a bound of the service left out. */
function Footer({ listing }: { readonly listing: Listing }) {
  const { entries, hasMore, isComplete, isCurrent, error, query } = listing;
  let text = "";
  if (isCurrent && entries.length > 0) {
    const count = formatCount(entries.length);
    const what = query.search === "" ? "entries" : "found";
    text = hasMore ? `${count} ${what} so far` : `${count} ${what}`;
    if (entries.length === 1 && query.search === "" && !hasMore) {
      text = "1 entry";
    }
  }
  const isPart = isCurrent && !hasMore && !isComplete;
  return (
    <div className="browser-footer" role="status">
      {text}
      {isPart && " · the search ended early: give more letters, or begin in a folder below"}
      {error !== null && entries.length > 0 && (
        <>
          {" · the rest did not come "}
          <button type="button" className="plain link" onClick={listing.reload}>
            Try again
          </button>
        </>
      )}
    </div>
  );
}

/** Says why there is no list, and what one can do. */
function Reason({ listing, search, isRecursive, onSearch, onRecursive }: BrowserProps) {
  const { error, isLoading, query, isComplete } = listing;
  const { dir } = query;
  if (error !== null) {
    const { icon, title, text } = describeDirectoryError(error, showFileName(dir));
    return (
      <Notice
        icon={icon}
        title={title}
        isAlert
        actions={
          <>
            <RetryButton error={error} onClick={listing.reload} />
            {dir !== ROOT && <UpLink dir={dir} />}
          </>
        }
      >
        <p>{text}</p>
        {error.problem === "failed" && <p className="detail">{error.message}</p>}
      </Notice>
    );
  }
  if (isLoading) {
    return null;
  }
  if (query.search !== "") {
    return (
      <Notice
        icon="search"
        title="Nothing found"
        actions={
          <>
            {!isRecursive && (
              <button type="button" className="primary" onClick={() => onRecursive(true)}>
                Search in folders below
              </button>
            )}
            <button type="button" onClick={() => onSearch("")}>
              Clear the search
            </button>
          </>
        }
      >
        <p>
          {isRecursive ? "No name in this folder and below it" : "No name in this folder"} holds “
          {search.trim()}”.
          {!isComplete && " The search ended before all folders were looked at."}
        </p>
      </Notice>
    );
  }
  return (
    <Notice icon="folder" title="This folder is empty" actions={dir !== ROOT && <UpLink dir={dir} />}>
      <p>
        {dir === ROOT
          ? "Put HDF5 files into the folder that asgihive serves; they are shown here when you reload the list."
          : "There are no files and no folders in it."}
      </p>
      {dir === ROOT && (
        <button type="button" onClick={listing.reload}>
          Reload the list
        </button>
      )}
    </Notice>
  );
}

function UpLink({ dir }: { readonly dir: FileName }): ReactNode {
  const parent = findParent(dir);
  return (
    <PlaceLink className="button" place={placeOfDirectory(parent)}>
      Go up to {parent === ROOT ? "all files" : `“${showLastSegment(parent)}”`}
    </PlaceLink>
  );
}

/** Go to the directory above `dir`. */
export function goUp(dir: FileName): void {
  goTo(placeOfDirectory(findParent(dir)));
}
