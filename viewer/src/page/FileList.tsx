/** The entries of a listing: only those rows exist that are seen, however many there are. */

import {
  type CSSProperties,
  forwardRef,
  type KeyboardEvent,
  useEffect,
  useImperativeHandle,
  useLayoutEffect,
  useRef,
  useState,
} from "react";

import type { Entry } from "../api";
import { type FileName, findParent, ROOT, showFileName } from "../names";
import type { Listing } from "../useListing";
import { FileRow } from "./FileRow";

/** Height of a row in pixels: on one line where there is room for columns, on two elsewhere. */
const WIDE_ROW = 40;
const NARROW_ROW = 54;
/** From which width on there are columns, in pixels; as in the style sheet. */
const WIDE_FROM = 560;
/** Rows beyond the seen ones at either end, so that scrolling shows no gaps. */
const SPARE_ROWS = 8;
/** Rows that are scrolled before others are made. */
const STEP_ROWS = 3;
/** The next page is fetched when so many rows or fewer are left below. */
const ROWS_AHEAD = 60;

export interface FileListHandle {
  /** Put the focus on the row that had it last, or on the first one. */
  readonly focus: () => void;
}

interface FileListProps {
  readonly listing: Listing;
  /** The file that is open, whose row is marked. */
  readonly openFile: FileName | null;
}

export const FileList = forwardRef<FileListHandle, FileListProps>(function FileList(
  { listing, openFile },
  handle,
) {
  const { entries, hasMore, loadMore, query } = listing;
  const scroller = useRef<HTMLDivElement>(null);
  const focused = useRef<HTMLAnchorElement>(null);
  const [view, setView] = useState({ top: 0, height: 0, width: 0 });
  const [active, setActive] = useState(0);
  const [wantsFocus, setWantsFocus] = useState(false);

  const rowHeight = view.width >= WIDE_FROM ? WIDE_ROW : NARROW_ROW;
  const first = Math.max(0, Math.floor(view.top / rowHeight) - SPARE_ROWS);
  const last = Math.min(
    entries.length,
    Math.ceil((view.top + view.height) / rowHeight) + STEP_ROWS + SPARE_ROWS,
  );

  const openIndex = openFile === null ? -1 : entries.findIndex((each) => each.encoded === openFile);
  const [followedIndex, setFollowedIndex] = useState(-1);
  if (openIndex !== followedIndex) {
    // While rendering: an effect may come later than the next key, whose row would be the old one.
    setFollowedIndex(openIndex);
    if (openIndex >= 0) {
      setActive(openIndex);
    }
  }
  const activeIndex = Math.min(active, entries.length - 1);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) {
      return undefined;
    }
    const measure = () => {
      const step = STEP_ROWS * NARROW_ROW;
      const top = Math.floor(element.scrollTop / step) * step;
      const { clientHeight: height, clientWidth: width } = element;
      setView((old) =>
        old.top === top && old.height === height && old.width === width
          ? old
          : { top, height, width },
      );
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);

  useEffect(() => {
    if (hasMore && entries.length - last <= ROWS_AHEAD) {
      loadMore();
    }
  }, [entries.length, hasMore, last, loadMore]);

  // Another listing begins at its first row.
  const queryKey = JSON.stringify(query);
  useEffect(() => {
    setActive(0);
    scroller.current?.scrollTo({ top: 0 });
  }, [queryKey]);

  useEffect(() => {
    if (openIndex >= 0) {
      scrollToRow(scroller.current, openIndex, rowHeight);
    }
  }, [openIndex, rowHeight]);

  useImperativeHandle(
    handle,
    () => ({
      focus: () => {
        scrollToRow(scroller.current, Math.max(0, activeIndex), rowHeight);
        setWantsFocus(true);
      },
    }),
    [activeIndex, rowHeight],
  );

  // The row exists only after the scrolling.
  useEffect(() => {
    if (wantsFocus && focused.current) {
      focused.current.focus({ preventScroll: true });
      setWantsFocus(false);
    }
  }, [wantsFocus, activeIndex, first, last]);

  const move = (index: number) => {
    const next = Math.max(0, Math.min(entries.length - 1, index));
    setActive(next);
    scrollToRow(scroller.current, next, rowHeight);
    setWantsFocus(true);
  };

  const pressKey = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(view.height / rowHeight) - 1);
    const target: Record<string, number> = {
      ArrowDown: activeIndex + 1,
      ArrowUp: activeIndex - 1,
      PageDown: activeIndex + page,
      PageUp: activeIndex - page,
      Home: 0,
      End: entries.length - 1,
    };
    const next = target[event.key];
    if (next !== undefined && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      move(next);
    }
  };

  const style = { "--row": `${rowHeight}px`, height: entries.length * rowHeight };
  return (
    <div ref={scroller} className="list" onKeyDown={pressKey}>
      <ul style={style as CSSProperties} aria-label="Files and folders">
        {entries.slice(first, last).map((entry, index) => (
          <FileRow
            key={entry.encoded}
            entry={entry}
            index={first + index}
            // A screen reader is told -1 where the number is not known yet.
            count={hasMore ? -1 : entries.length}
            isActive={first + index === activeIndex}
            isOpen={entry.encoded === openFile}
            dir={query.dir}
            below={findFolderBelow(entry, query.dir)}
            anchorRef={first + index === activeIndex ? focused : null}
            onFocus={() => setActive(first + index)}
          />
        ))}
      </ul>
    </div>
  );
});

/** Return the folder below `dir` that a search found an entry in, to show; "" is `dir` itself. */
function findFolderBelow(entry: Entry, dir: FileName): string {
  const parent = findParent(entry.encoded);
  const below = dir === ROOT ? parent : parent.slice(dir.length + 1);
  return showFileName(below as FileName);
}

/** Scroll as little as shows a whole row. */
function scrollToRow(element: HTMLElement | null, index: number, rowHeight: number): void {
  if (!element) {
    return;
  }
  const top = index * rowHeight;
  if (top < element.scrollTop) {
    element.scrollTop = top;
  } else if (top + rowHeight > element.scrollTop + element.clientHeight) {
    element.scrollTop = top + rowHeight - element.clientHeight;
  }
}
