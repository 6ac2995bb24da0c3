/** The bar at the top: where one is, and what holds for the whole page. */

import { useEffect, useState } from "react";

import { Icon, type IconName } from "../icons";
import type { Place } from "../location";
import { showLastSegment } from "../names";
import { type Theme, theme, useSetting } from "../settings";
import { findNextTheme } from "../theme";
import { Breadcrumbs } from "./Breadcrumbs";

/** How long the button says that the address was copied, in milliseconds. */
const COPIED_MS = 2000;

const THEMES: Record<Theme, readonly [IconName, string]> = {
  system: ["system", "Colours as the system has them"],
  light: ["light", "Light colours"],
  dark: ["dark", "Dark colours"],
};

interface HeaderProps {
  readonly place: Place;
  readonly isListShown: boolean;
  readonly onToggleList: () => void;
  readonly onBack: () => void;
  readonly onShowKeys: () => void;
}

export function Header({ place, isListShown, onToggleList, onBack, onShowKeys }: HeaderProps) {
  const chosen = useSetting(theme);
  const [icon, text] = THEMES[chosen];
  return (
    <header className="header own">
      <h1 className="hidden">{showLastSegment(place.file ?? place.dir) || "Files"}</h1>
      {place.file !== null && (
        <>
          <IconButton icon="left" label="Back to the list" className="phone-only" onClick={onBack} />
          <IconButton
            icon="list"
            label={isListShown ? "Hide the list" : "Show the list"}
            className="desktop-only"
            isPressed={isListShown}
            onClick={onToggleList}
          />
        </>
      )}
      <Breadcrumbs dir={place.dir} file={place.file} />
      <CopyLink />
      <IconButton
        icon={icon}
        label={`${text}. Change.`}
        onClick={() => theme.set(findNextTheme(chosen))}
      />
      <IconButton icon="keyboard" label="Keys" className="desktop-only" onClick={onShowKeys} />
    </header>
  );
}

/** Copies the address of what is shown, for a colleague. */
function CopyLink() {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) {
      return undefined;
    }
    const timer = setTimeout(() => setCopied(false), COPIED_MS);
    return () => clearTimeout(timer);
  }, [isCopied]);
  // A page that came by plain HTTP from another machine may not write to the clipboard.
  if (!navigator.clipboard) {
    return null;
  }
  return (
    <>
      <IconButton
        icon={isCopied ? "done" : "link"}
        label="Copy the address of this view"
        onClick={() => void navigator.clipboard.writeText(location.href).then(() => setCopied(true))}
      />
      <span className="hidden" role="status">
        {isCopied && "The address is copied."}
      </span>
    </>
  );
}

interface IconButtonProps {
  readonly icon: IconName;
  readonly label: string;
  readonly className?: string;
  readonly isPressed?: boolean;
  readonly onClick: () => void;
}

function IconButton({ icon, label, className = "", isPressed, onClick }: IconButtonProps) {
  return (
    <button
      type="button"
      className={`plain icon-button ${className}`}
      title={label}
      aria-label={label}
      aria-pressed={isPressed}
      onClick={onClick}
    >
      <Icon name={icon} />
    </button>
  );
}
