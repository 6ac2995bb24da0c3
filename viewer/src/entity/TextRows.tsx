/** A long table of text or compounds, some rows at a time. */

import { useState } from "react";
import type { DatasetReader } from "./reading";
import { useLatest } from "./useLatest";

const ROWS_A_PAGE = 500;

interface Props {
  readonly reader: DatasetReader;
  readonly shape: number[];
}

export function TextRows({ reader, shape }: Props) {
  const [first, setFirst] = useState(0);
  const length = shape[0] ?? 1;
  const stop = Math.min(length, first + ROWS_A_PAGE);
  const rows = useLatest(
    // Of further axes the first element: a row is one line of text.
    (signal) => reader.readRows(shape.map((_, axis) => (axis ? 0 : "x")), [first, stop], signal),
    [reader, first, stop],
  );
  return (
    <div className="reduced-rows">
      <nav aria-label="Rows">
        <button type="button" disabled={!first} onClick={() => setFirst(first - ROWS_A_PAGE)}>
          Back
        </button>
        <span>
          Rows {first} to {stop - 1} of {length}
        </span>
        <button type="button" disabled={stop === length} onClick={() => setFirst(stop)}>
          On
        </button>
      </nav>
      {rows === undefined ? (
        <p role="status">Reading…</p>
      ) : (
        <table>
          <tbody>
            {rows.map((row, each) => (
              <tr key={first + each}>
                <th scope="row">{first + each}</th>
                {(Array.isArray(row) ? row : [row]).map((value, column) => (
                  <td key={column}>{typeof value === "string" ? value : JSON.stringify(value)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </div>
  );
}
