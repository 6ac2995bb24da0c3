/** What went wrong, or why there is nothing to see, in words, each with the next step. */

import type { ReactNode } from "react";

import type { ServiceError } from "../errors";
import { Icon, type IconName } from "../icons";

export interface NoticeProps {
  readonly icon: IconName;
  readonly title: string;
  readonly children?: ReactNode;
  /** Buttons or links: the next steps, the likeliest first. */
  readonly actions?: ReactNode;
  /** Whether a screen reader says it at once: for errors. */
  readonly isAlert?: boolean;
}

export function Notice({ icon, title, children, actions, isAlert = false }: NoticeProps) {
  return (
    <div className="notice own" role={isAlert ? "alert" : "status"}>
      <span className="notice-icon">
        <Icon name={icon} />
      </span>
      <h2>{title}</h2>
      {children && <div className="notice-text">{children}</div>}
      {actions && <div className="notice-actions">{actions}</div>}
    </div>
  );
}

interface RetryButtonProps {
  readonly error: ServiceError;
  readonly onClick: () => void;
}

/** The likeliest next step after an error. */
export function RetryButton({ error, onClick }: RetryButtonProps) {
  return (
    <button type="button" className="primary" onClick={onClick}>
      {error.problem === "token" ? "Enter a token" : "Try again"}
    </button>
  );
}

interface Words {
  readonly icon: IconName;
  readonly title: string;
  readonly text: string;
}

/** Return what to say of an error of a directory. */
export function describeDirectoryError(error: ServiceError, dir: string): Words {
  switch (error.problem) {
    case "missing":
    case "no-entity":
      return {
        icon: "folder",
        title: "No such folder",
        text: `“${dir}” is not here. It may have been moved, renamed or deleted.`,
      };
    case "permission":
      return {
        icon: "lock",
        title: "You may not look into this folder",
        text: "The service has no permission to read it. Who runs the service can change that.",
      };
    default:
      return describeError(error, "this folder");
  }
}

/** Return what to say of an error of a file. */
export function describeFileError(error: ServiceError, file: string): Words {
  switch (error.problem) {
    case "missing":
      return {
        icon: "file",
        title: "No such file",
        text: `“${file}” is not here. It may have been moved, renamed or deleted.`,
      };
    case "permission":
      return {
        icon: "lock",
        title: "You may not read this file",
        text: "The service has no permission to read it. Who runs the service can change that.",
      };
    case "damaged":
      return {
        icon: "warning",
        title: "This is no HDF5 file that can be read",
        text: "It is of another kind, damaged, or was not written to its end. If it is being written now, try again later.",
      };
    case "changed":
      return {
        icon: "reload",
        title: "The file changed while it was read",
        text: "Something is writing to it. Read it again when the writing pauses.",
      };
    default:
      return describeError(error, "this file");
  }
}

function describeError(error: ServiceError, what: string): Words {
  switch (error.problem) {
    case "gone":
      return {
        icon: "offline",
        title: "The service does not answer",
        text: "It may have been stopped, or the network is away. The page asks again by itself.",
      };
    case "token":
      return {
        icon: "lock",
        title: "A token is needed",
        text: `The service shows ${what} only to those who know its token.`,
      };
    case "busy":
      return {
        icon: "warning",
        title: "The service is busy",
        text: `It could not read ${what} in time.`,
      };
    default:
      return { icon: "warning", title: "The service could not answer", text: "" };
  }
}
