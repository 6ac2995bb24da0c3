/** One entry of the list: its picture or icon, its name, its date and size. */

import { type CSSProperties, memo, type Ref } from "react";

import type { Entry } from "../api";
import { formatExactly, formatMoment, formatSize } from "../format";
import { Icon, type IconName } from "../icons";
import type { Place } from "../location";
import type { FileName } from "../names";
import { useThumbnail } from "../thumbnails";
import { PlaceLink } from "./Breadcrumbs";

const ICONS: Record<Entry["kind"], IconName> = {
  directory: "folder",
  hdf5: "file",
  file: "other",
};

/** Characters at the end of a name that are shown however narrow the row is. */
const TAIL = 12;
const CONTROL = /[\u0000-\u001f]/g;

export interface FileRowProps {
  readonly entry: Entry;
  readonly index: number;
  /** How many rows the list has; -1 where that is not known. */
  readonly count: number;
  /** Whether it is the row that Tab reaches. */
  readonly isActive: boolean;
  readonly isOpen: boolean;
  /** The folder that a search found it in; "" is the one that is shown. */
  readonly below: string;
  /** The directory that is listed. */
  readonly dir: FileName;
  readonly anchorRef: Ref<HTMLAnchorElement>;
  readonly onFocus: () => void;
}

export const FileRow = memo(function FileRow(props: FileRowProps) {
  const { entry, index, count, isActive, isOpen, below, dir, anchorRef, onFocus } = props;
  const { name, kind, size, modified } = entry;
  const style = { transform: `translateY(calc(${index} * var(--row)))` } as CSSProperties;
  return (
    <li style={style} aria-setsize={count} aria-posinset={index + 1}>
      <PlaceLink
        className="row"
        place={findPlace(entry, dir)}
        anchorRef={anchorRef}
        tabIndex={isActive ? 0 : -1}
        aria-current={isOpen ? "true" : undefined}
        data-kind={kind}
        onFocus={onFocus}
      >
        <Thumbnail entry={entry} />
        <span className="row-name" title={name}>
          {below !== "" && <span className="row-below">{below}/</span>}
          <MiddleEllipsis text={name} />
        </span>
        <span className="row-date">
          {modified !== null && (
            <time dateTime={modified} title={formatExactly(modified)}>
              {formatMoment(modified, new Date())}
            </time>
          )}
        </span>
        <span className="row-size">
          {kind === "directory" ? "Folder" : size === null ? "" : formatSize(size)}
        </span>
      </PlaceLink>
    </li>
  );
}, isSameRow);

/** Return where an entry leads; `dir` stays the list beside the file. */
export function findPlace({ kind, encoded }: Entry, dir: FileName): Place {
  return kind === "directory"
    ? { dir: encoded, file: null, path: "/" }
    : { dir, file: encoded, path: "/" };
}

/** The picture of a file, or the icon of its kind. */
export function Thumbnail({ entry }: { readonly entry: Pick<Entry, "encoded" | "kind" | "modified"> }) {
  const [reference, address] = useThumbnail(entry);
  return (
    <span className="thumbnail" ref={reference}>
      {address === null ? <Icon name={ICONS[entry.kind]} /> : <img src={address} alt="" />}
    </span>
  );
}

/** A name that is shortened before its end: the numbers of scans are there. */
function MiddleEllipsis({ text }: { readonly text: string }) {
  const characters = [...text.replace(CONTROL, showControl)];
  if (characters.length < 2 * TAIL) {
    return <span className="ellipsis">{characters.join("")}</span>;
  }
  const split = characters.length - TAIL;
  return (
    <span className="ellipsis">
      <span>{characters.slice(0, split).join("")}</span>
      <span>{characters.slice(split).join("")}</span>
    </span>
  );
}

/** Return the picture of a control character, such as a new line, which would break the row. */
function showControl(character: string): string {
  return String.fromCharCode(0x2400 + character.charCodeAt(0));
}

/** Return whether a row looks the same; its functions say the same in each rendering. */
function isSameRow(before: FileRowProps, after: FileRowProps): boolean {
  return (
    before.entry === after.entry &&
    before.index === after.index &&
    before.count === after.count &&
    before.isActive === after.isActive &&
    before.isOpen === after.isOpen &&
    before.below === after.below &&
    before.dir === after.dir
  );
}
