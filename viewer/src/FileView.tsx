/** One HDF5 file: h5web over the service, and what h5web leaves out. */

import "@h5web/app/styles.css";
import "./entity/entity.css";

import { App, H5GroveProvider } from "@h5web/app";
import { type MouseEvent, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { createPortal } from "react-dom";

import { BASE } from "./api";
import { Exports } from "./entity/Exports";
import { guardFetcher } from "./entity/guard";
import { LiveBar } from "./entity/LiveBar";
import { useLive } from "./entity/live";
import { ReducedView } from "./entity/ReducedView";
import { useSelectedPath } from "./entity/selectedPath";
import type { DatasetSize } from "./entity/sizes";
import type { ServiceError } from "./errors";
import { makeExportLinks, makeFetcher } from "./h5web";
import { type FileName, showFileName } from "./names";

/** h5web's own name of the part that shows an entity. */
const MAIN_AREA = "h5w-main-area";

/** h5web's button for its tree. */
const TREE_BUTTON = '[aria-label="Toggle sidebar"]';

/** A screen on which h5web's tree would leave no room for the picture, as in page.css. */
const PHONE = "(width < 48rem)";

export interface FileViewProps {
  readonly file: FileName;
  /** The HDF5 path that is shown first. */
  readonly path: string;
  /** Is told which HDF5 path the reader has gone to. */
  readonly onPathChange: (path: string) => void;
  /** Is told of each answer about the file that is not OK; must stay the same function. */
  readonly onError: (error: ServiceError) => void;
}

/** What h5web asked for last of a dataset. */
interface Asked {
  readonly dataset: DatasetSize;
  readonly selection: string;
  readonly isTooLarge: boolean;
}

export default function FileView({ file, path, onPathChange, onError }: FileViewProps) {
  const container = useRef<HTMLDivElement>(null);
  const [version, setVersion] = useState(0);
  const [isPhone] = useState(() => matchMedia(PHONE).matches);
  const [isTreeOpen, setTreeOpen] = useState(false);
  // Where h5web began, and how often it did: it is told of no other path later.
  const [begun, setBegun] = useState({ path, number: 0 });
  const [shown, setShown] = useState(path);
  const [asked, setAsked] = useState<Asked>();
  const [isFollowing, setIsFollowing] = useState(false);

  const guarded = useMemo(
    () =>
      guardFetcher(
        makeFetcher(file, onError),
        (dataset, selection, isTooLarge) => setAsked({ dataset, selection, isTooLarge }),
        (dataset) => setAsked((before) => (before?.dataset === dataset ? undefined : before)),
      ),
    // Another version is another fetcher, so that h5web keeps nothing of the one before.
    [file, onError, version],
  );
  const getExportURL = useMemo(() => makeExportLinks(file), [file]);
  const shownPath = useRef(path);
  const showPath = useCallback(
    (next: string) => {
      if (next !== shownPath.current) {
        shownPath.current = next;
        setShown(next);
        setIsFollowing(false);
        onPathChange(next);
      }
    },
    [onPathChange],
  );
  const isDisplay = useSelectedPath(container, showPath);
  useEffect(() => {
    // The browser's Back, or a link: h5web begins there anew.
    if (path !== shownPath.current) {
      shownPath.current = path;
      setBegun(({ number }) => ({ path, number: number + 1 }));
      setShown(path);
    }
  }, [path]);

  const known = guarded.datasets.get(shown);
  const subject: Asked | undefined =
    asked !== undefined && isWithin(asked.dataset.path, shown)
      ? asked
      : known && { dataset: known, selection: "", isTooLarge: false };
  const live = useLive(file, subject?.dataset.path ?? shown);
  const isReduced = subject !== undefined && isDisplay && (isFollowing || subject.isTooLarge);

  function reload() {
    setAsked(undefined);
    setBegun(({ number }) => ({ path: shown, number: number + 1 }));
    setVersion(version + 1);
  }

  // On a phone, h5web does not open its tree beside the picture, for which it wants 500 pixels.
  function pressOnPhone(event: MouseEvent) {
    const pressed = event.target as Element;
    if (pressed.closest(TREE_BUTTON)) {
      event.stopPropagation();
      setTreeOpen(!isTreeOpen);
    } else if (pressed.closest('[role="treeitem"]:not([aria-expanded])')) {
      setTreeOpen(false);
    }
  }

  useEffect(() => {
    // h5web, which is not told of the press, says that its tree is closed.
    const button = isPhone ? container.current?.querySelector(TREE_BUTTON) : null;
    button?.setAttribute("aria-pressed", `${isTreeOpen}`);
  }, [isPhone, isTreeOpen]);

  return (
    <div className="file-view" ref={container}>
      <header className="file-bar">
        <LiveBar
          live={live}
          version={version}
          canFollow={subject?.dataset.isNumeric === true && subject.dataset.shape.length > 0}
          isFollowing={isFollowing}
          onFollow={setIsFollowing}
          onReload={reload}
        />
        {subject && (
          <Exports file={file} dataset={subject.dataset} selection={subject.selection} />
        )}
      </header>
      <div
        className="file-body"
        data-tree-open={(isPhone && isTreeOpen) || undefined}
        onClickCapture={isPhone ? pressOnPhone : undefined}
      >
        <H5GroveProvider
          key={begun.number}
          url={BASE}
          filepath={showFileName(file)}
          fetcher={guarded.fetch}
          getExportURL={getExportURL}
        >
          <App initialPath={begun.path} sidebarOpen={!isPhone} disableDarkMode />
        </H5GroveProvider>
      </div>
      {isReduced && (
        <MainArea container={container.current}>
          <ReducedView
            key={`${subject.dataset.path} ${isFollowing}`}
            fetcher={guarded.fetchAll}
            base={BASE}
            file={file}
            dataset={subject.dataset}
            shape={live.shape ?? subject.dataset.shape}
            isFollowing={isFollowing}
          />
        </MainArea>
      )}
    </div>
  );
}

/** Return whether an entity is another one, or a member of it. */
function isWithin(path: string, group: string): boolean {
  return path === group || path.startsWith(group === "/" ? "/" : `${group}/`);
}

/** Draws its children over the part of h5web that shows an entity. */
function MainArea(props: {
  readonly container: HTMLElement | null;
  readonly children: React.ReactNode;
}) {
  const area = props.container?.querySelector(`#${MAIN_AREA}, [data-panel-id="${MAIN_AREA}"]`);
  return area ? createPortal(props.children, area) : null;
}
