/** What is shown, to take along: as a file, a picture, or as lines of Python. */

import { type RefObject, useEffect, useRef, useState } from "react";

import { BASE, formatLink } from "../api";
import type { FileName } from "../names";
import { getToken } from "../token";
import { type DatasetSize, measureSelection } from "./sizes";
import { writeSnippets } from "./snippets";

interface Format {
  readonly format: string;
  readonly label: string;
  /** What else the request says. */
  readonly options?: Record<string, string>;
  /** Whether the format has values of a rank and kind. */
  readonly fits: (rank: number, isNumeric: boolean) => boolean;
}

const FORMATS: readonly Format[] = [
  { format: "npy", label: "NumPy (.npy)", fits: (_, isNumeric) => isNumeric },
  {
    format: "csv",
    label: "CSV with a header (.csv)",
    options: { header: "true" },
    fits: (rank) => rank <= 2,
  },
  {
    format: "tiff",
    label: "TIFF (.tiff)",
    fits: (rank, isNumeric) => isNumeric && (rank === 2 || rank === 3),
  },
  { format: "json", label: "JSON (.json)", fits: () => true },
];

interface Props {
  readonly file: FileName;
  readonly dataset: DatasetSize;
  readonly selection: string;
}

export function Exports({ file, dataset, selection }: Props) {
  const { path, shape, isNumeric } = dataset;
  const rank = measureSelection(shape, selection).length;
  const formats = FORMATS.filter((each) => each.fits(rank, isNumeric));
  const chosen = { file, path, selection: selection || undefined };
  const snippets = writeSnippets({
    base: BASE,
    file,
    path,
    selection,
    hasToken: getToken() !== null,
  });
  const menu = useRef<HTMLDetailsElement>(null);
  useEffect(() => closeOutside(menu), []);
  return (
    <details className="exports" ref={menu}>
      <summary>Export</summary>
      <div className="exports-menu">
        <p>
          <code>{path}</code>
          {selection !== "" && <code>[{selection}]</code>}
        </p>
        <ul>
          {formats.map(({ format, label, options }) => (
            <li key={format}>
              <a href={formatLink("data", { ...chosen, ...options, format })} download>
                {label}
              </a>
            </li>
          ))}
          {isNumeric && rank === 2 && (
            <li>
              <a href={formatLink("image", chosen)} target="_blank" rel="noreferrer">
                Picture (.png)
              </a>
            </li>
          )}
          {isNumeric && rank === 1 && (
            <li>
              <a href={formatLink("plot", chosen)} target="_blank" rel="noreferrer">
                Plot (.svg)
              </a>
            </li>
          )}
        </ul>
        {snippets.map(({ label, code }) => (
          <CopyableCode key={label} label={label} code={code} />
        ))}
      </div>
    </details>
  );
}

/** Close a menu when the reader turns to something else; return what ends that. */
function closeOutside(menu: RefObject<HTMLDetailsElement>): () => void {
  function close(event: Event) {
    const element = menu.current;
    if (!element?.open) {
      return;
    }
    const isKey = event instanceof KeyboardEvent;
    if (isKey ? event.key === "Escape" : !element.contains(event.target as Node)) {
      element.open = false;
      if (isKey) {
        element.querySelector("summary")?.focus();
      }
    }
  }
  document.addEventListener("pointerdown", close);
  document.addEventListener("keydown", close);
  return () => {
    document.removeEventListener("pointerdown", close);
    document.removeEventListener("keydown", close);
  };
}

function CopyableCode({ label, code }: { readonly label: string; readonly code: string }) {
  const [told, setTold] = useState("");

  async function copy() {
    try {
      await navigator.clipboard.writeText(code);
      setTold("Copied");
    } catch {
      // A page that is not served by HTTPS has no clipboard.
      setTold("Select the lines and copy them by hand");
    }
  }

  return (
    <section className="exports-code">
      <header>
        <h3>{label}</h3>
        <span role="status">{told}</span>
        <button type="button" onClick={() => void copy()} aria-label={`Copy the lines for ${label}`}>
          Copy
        </button>
      </header>
      <pre tabIndex={0}>{code}</pre>
    </section>
  );
}
