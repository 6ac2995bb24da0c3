/** The file that is open, or what is wrong with it. */

import { Component, type ReactNode, useCallback, useEffect, useRef, useState } from "react";

import { noteServiceGone, useConnection } from "../connection";
import { type ServiceError, toServiceError } from "../errors";
import type { FileViewProps } from "../FileView";
import type { Place } from "../location";
import { type FileName, findParent, showFileName } from "../names";
import { noteOpening } from "../opening";
import { forgetFile, rememberFile } from "../settings";
import { PlaceLink, placeOfDirectory } from "./Breadcrumbs";
import { describeFileError, Notice, RetryButton } from "./Notice";

// The list of files need not wait for h5web, nor h5web for the list.
const fileView = import("../FileView");
let loadedFileView: Awaited<typeof fileView> | undefined;
// Whoever shows a file tells of a failure.
fileView.then((loaded) => (loadedFileView = loaded)).catch(() => undefined);

/**
 * The view of a file, once h5web is there.
 *
 * Not by `lazy`: React 18 shows what comes after a fallback of its `Suspense` half a second later,
 * begins anew with each answer to h5web until then, and h5web asks again for all of them.
 */
function FileView(props: FileViewProps) {
  const [loaded, setLoaded] = useState(loadedFileView);
  const [error, setError] = useState<unknown>();
  useEffect(() => void fileView.then(setLoaded, setError), []);
  if (error !== undefined) {
    throw error;
  }
  return loaded ? <loaded.default {...props} /> : <p className="waiting">Loading…</p>;
}

interface FilePanelProps {
  readonly place: Place & { readonly file: FileName };
  readonly onPathChange: (path: string) => void;
  readonly onOpenRoot: () => void;
}

export function FilePanel({ place, onPathChange, onOpenRoot }: FilePanelProps) {
  const { file } = place;
  const [error, setError] = useState<ServiceError | null>(null);
  const [attempt, setAttempt] = useState(0);
  const { returns } = useConnection();

  const tryAgain = useCallback(() => {
    setError(null);
    setAttempt((count) => count + 1);
  }, []);

  const noteError = useCallback((thrown: ServiceError) => {
    if (thrown.problem === "gone") {
      noteServiceGone();
    }
    setError((old) => (isWorse(thrown, old) ? thrown : old));
  }, []);

  useEffect(() => {
    setError(null);
    noteOpening();
    rememberFile(file);
  }, [file]);

  useEffect(() => {
    if (error?.problem === "missing") {
      forgetFile(file);
    }
  }, [error, file]);

  // What failed while the service was away is asked for again; what did not fail stays.
  const failed = useRef<ServiceError | null>(null);
  failed.current = error;
  useEffect(() => {
    if (failed.current?.problem === "gone") {
      tryAgain();
    }
  }, [returns, tryAgain]);

  if (error !== null && hidesFile(error)) {
    return <FileProblem error={error} file={file} onTryAgain={tryAgain} />;
  }
  return (
    <>
      {error !== null && (
        <FileBar error={error} place={place} onTryAgain={tryAgain} onOpenRoot={onOpenRoot} />
      )}
      <div className="file-frame">
        <Failure key={`${file} ${attempt}`} file={file} onTryAgain={tryAgain}>
          <FileView
            file={file}
            path={place.path}
            onPathChange={onPathChange}
            onError={noteError}
          />
        </Failure>
      </div>
    </>
  );
}

/** Return whether an error leaves nothing of the file to show. */
function hidesFile({ problem }: ServiceError): boolean {
  return ["missing", "permission", "damaged", "token"].includes(problem);
}

/** Return whether an error is to be shown in place of the one that is. */
function isWorse(error: ServiceError, shown: ServiceError | null): boolean {
  // All other errors are about a value, and h5web shows them where the value would be.
  const isShown = hidesFile(error) || ["changed", "gone", "no-entity"].includes(error.problem);
  return isShown && (shown === null || !hidesFile(shown));
}

interface FileProblemProps {
  readonly error: ServiceError;
  readonly file: FileName;
  readonly onTryAgain: () => void;
}

/** Says what is wrong with a file, in its place. */
function FileProblem({ error, file, onTryAgain }: FileProblemProps) {
  const { icon, title, text } = describeFileError(error, showFileName(file));
  return (
    <Notice
      icon={icon}
      title={title}
      isAlert
      actions={
        <>
          <RetryButton error={error} onClick={onTryAgain} />
          <PlaceLink className="button" place={placeOfDirectory(findParent(file))}>
            Show its folder
          </PlaceLink>
        </>
      }
    >
      <p>{text}</p>
      <details>
        <summary>What the service says</summary>
        <p className="detail">{error.message}</p>
      </details>
    </Notice>
  );
}

interface FileBarProps {
  readonly error: ServiceError;
  readonly place: Place;
  readonly onTryAgain: () => void;
  readonly onOpenRoot: () => void;
}

/** Says above a file what is wrong with a part of it. */
function FileBar({ error, place, onTryAgain, onOpenRoot }: FileBarProps) {
  if (error.problem === "gone") {
    return null; // which the bar of the page says
  }
  const isChanged = error.problem === "changed";
  return (
    <div className="bar own" role="alert">
      <span>
        {isChanged
          ? "The file changed while it was read."
          : `There is nothing to show at “${place.path}” in this file.`}
      </span>
      <button type="button" onClick={isChanged ? onTryAgain : onOpenRoot}>
        {isChanged ? "Read it again" : "Go to the top of the file"}
      </button>
    </div>
  );
}

interface FailureProps {
  readonly file: FileName;
  readonly onTryAgain: () => void;
  readonly children: ReactNode;
}

/** Shows an error of the view itself, which would else leave an empty page. */
class Failure extends Component<FailureProps, { error: ServiceError | null }> {
  override state = { error: null };

  static getDerivedStateFromError(thrown: unknown) {
    return { error: toServiceError(thrown) };
  }

  override render() {
    const { file, onTryAgain, children } = this.props;
    const { error } = this.state;
    return error === null ? (
      children
    ) : (
      <FileProblem error={error} file={file} onTryAgain={onTryAgain} />
    );
  }
}
