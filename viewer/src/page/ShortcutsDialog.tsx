/** Lists the keys of the page. */

import { Fragment, useEffect, useRef } from "react";

const SHORTCUTS: readonly (readonly [keys: readonly string[], effect: string])[] = [
  [["/"], "Search names"],
  [["↑", "↓"], "Go through the list; also Home, End, Page up, Page down"],
  [["Enter"], "Open the file or folder"],
  [["j", "k"], "Open the next, the previous file"],
  [["u"], "Go up to the folder above"],
  [["b"], "Show or hide the list beside a file"],
  [["t"], "Change between light, dark, and as the system"],
  [["Esc"], "Clear the search; close what is open; go back to the list"],
  [["?"], "Show these keys"],
];

export function ShortcutsDialog({ onClose }: { readonly onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  return (
    <dialog ref={dialog} className="dialog own" aria-labelledby="keys-title" onClose={onClose}>
      <h2 id="keys-title">Keys</h2>
      <dl className="keys">
        {SHORTCUTS.map(([keys, effect]) => (
          <Fragment key={effect}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{effect}</dd>
          </Fragment>
        ))}
      </dl>
      <div className="dialog-actions">
        <button type="button" className="primary" onClick={onClose}>
          Close
        </button>
      </div>
    </dialog>
  );
}
