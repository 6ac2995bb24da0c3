/** Says whether the file is followed, and what to do when it has changed. */

import { useEffect, useState } from "react";

import type { LiveState } from "./live";

interface Props {
  readonly live: LiveState;
  /** How often the reader has loaded the file again. */
  readonly version: number;
  /** Whether the dataset that is shown could grow. */
  readonly canFollow: boolean;
  readonly isFollowing: boolean;
  readonly onFollow: (isFollowing: boolean) => void;
  readonly onReload: () => void;
}

export function LiveBar(props: Props) {
  const { live, version, canFollow, isFollowing, onFollow, onReload } = props;
  const [seen, setSeen] = useState(live.changes);
  // Whatever changed before the reader loaded the file again is on the screen.
  useEffect(() => setSeen(live.changes), [version]);
  const hasChanged = live.changes > seen;

  return (
    <div className="live-bar">
      <span className="live-state" data-connected={live.isConnected}>
        {live.isConnected ? "Live" : "Not live"}
      </span>
      <span role="status">
        {live.isGone && "The file is gone; what is shown was read before."}
        {!live.isGone && hasChanged && !isFollowing && "The file has changed."}
        {isFollowing && "Following the newest data."}
      </span>
      {!live.isGone && hasChanged && !isFollowing && (
        <button type="button" onClick={onReload}>
          Reload
        </button>
      )}
      {canFollow && (
        <button type="button" aria-pressed={isFollowing} onClick={() => onFollow(!isFollowing)}>
          {isFollowing ? "Stop following" : "Follow"}
        </button>
      )}
    </div>
  );
}
