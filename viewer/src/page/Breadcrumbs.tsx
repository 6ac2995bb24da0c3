/** The way from the served directory to what is shown; each step is a link. */

import type { MouseEvent } from "react";

import { formatPlace, goTo, type Place } from "../location";
import { type FileName, listSteps, ROOT, showLastSegment } from "../names";

export function Breadcrumbs({ dir, file }: Pick<Place, "dir" | "file">) {
  const steps = [ROOT, ...listSteps(file ?? dir)];
  return (
    <nav className="crumbs" aria-label="Folders">
      <ol>
        {steps.map((step, index) => {
          const isLast = index === steps.length - 1;
          const name = step === ROOT ? "Files" : showLastSegment(step);
          return (
            <li key={step}>
              {isLast ? (
                <span aria-current="page" title={name}>
                  {name}
                </span>
              ) : (
                <PlaceLink place={{ dir: step, file: null, path: "/" }} title={name}>
                  {name}
                </PlaceLink>
              )}
            </li>
          );
        })}
      </ol>
    </nav>
  );
}

interface PlaceLinkProps extends Omit<React.AnchorHTMLAttributes<HTMLAnchorElement>, "href"> {
  readonly place: Place;
  readonly anchorRef?: React.Ref<HTMLAnchorElement>;
}

/** A link to a place: a click stays on the page, and all else that browsers do with links works. */
export function PlaceLink({ place, anchorRef, onClick, ...others }: PlaceLinkProps) {
  const follow = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (isPlain && !event.altKey && !event.defaultPrevented) {
      event.preventDefault();
      goTo(place);
    }
  };
  return <a {...others} ref={anchorRef} href={formatPlace(place)} onClick={follow} />;
}

/** Return the place of a directory. */
export function placeOfDirectory(dir: FileName): Place {
  return { dir, file: null, path: "/" };
}
