/** The files that were opened last, as small cards. */

import { Icon } from "../icons";
import { findParent, showFileName, showLastSegment } from "../names";
import { recentFiles, useSetting } from "../settings";
import { PlaceLink } from "./Breadcrumbs";
import { Thumbnail } from "./FileRow";

/** Cards that are shown: a row of them. */
const MOST_SHOWN = 6;

export function RecentFiles() {
  const files = useSetting(recentFiles);
  if (files.length === 0) {
    return null;
  }
  return (
    <section className="recent" aria-labelledby="recent-title">
      <header>
        <h2 id="recent-title">Last opened</h2>
        <button
          type="button"
          className="plain"
          title="Forget these files"
          onClick={() => recentFiles.set([])}
        >
          <Icon name="close" />
          <span className="hidden">Forget these files</span>
        </button>
      </header>
      <ul>
        {files.slice(0, MOST_SHOWN).map((file) => (
          <li key={file}>
            <PlaceLink place={{ dir: findParent(file), file, path: "/" }} title={showFileName(file)}>
              <Thumbnail entry={{ encoded: file, kind: "hdf5", modified: null }} />
              <span className="recent-name">{showLastSegment(file)}</span>
            </PlaceLink>
          </li>
        ))}
      </ul>
    </section>
  );
}
