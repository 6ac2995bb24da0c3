/** Parts of one dataset, as few points, read from the service. */

import type { Fetcher } from "@h5web/app";
import type { DimensionMapping, Size } from "@h5web/lib";
import ndarray, { type NdArray, type TypedArray } from "ndarray";
import { parseNpy } from "./npy";
import type { ReadTile, Span } from "./tiles";

/** How several elements become one point, as `/data` has it. */
export type Method = "mean" | "max" | "min";

/** Points of a line: the least and the greatest value of so many elements each. */
export interface LinePoints {
  readonly start: number;
  readonly stop: number;
  /** Elements that a point stands for. */
  readonly factor: number;
  readonly abscissas: Float64Array;
  readonly ordinates: Float64Array;
}

/** Bins of a line, which is then some thousand pixels wide. */
const MAX_BINS = 4096;

/** Asks one service for the values of one dataset. */
export class DatasetReader {
  constructor(
    private readonly fetcher: Fetcher,
    private readonly base: string,
    readonly file: string,
    readonly path: string,
  ) {}

  /** Return elements `start` to `stop` of a line as at most 4096 bins of minimum and maximum. */
  async readLine(
    mapping: DimensionMapping,
    [start, stop]: Span,
    signal: AbortSignal,
  ): Promise<LinePoints> {
    const factor = Math.max(1, Math.ceil((stop - start) / MAX_BINS));
    const selection = select(mapping, { x: [start, stop] });
    const points = { selection, method: "minmax", max_points: `${MAX_BINS}` };
    const { data } = await this.read(points, signal);
    const abscissas = Float64Array.from(data, (_, each) => {
      const bin = each >> 1;
      const first = start + bin * factor;
      const width = Math.min(factor, stop - first);
      // The minimum in the first half of the bin and the maximum in the second one.
      return first + (width - 1) * (each % 2 ? 0.75 : 0.25);
    });
    return { start, stop, factor, abscissas, ordinates: Float64Array.from(data) };
  }

  /** Return what reads tiles of one image of the dataset. */
  makeTileReader(mapping: DimensionMapping, method: Method): ReadTile {
    const isTurned = mapping.indexOf("x") < mapping.indexOf("y");
    return async (rows: Span, columns: Span, points: Size) => {
      const selection = select(mapping, { x: columns, y: rows });
      const shape = isTurned
        ? [points.width, points.height]
        : [points.height, points.width];
      const array = await this.read({ selection, method, shape: shape.join(",") });
      return isTurned ? turn(array) : array;
    };
  }

  /** Return rows of a dataset whose elements are shown as text. */
  async readRows(
    mapping: DimensionMapping,
    rows: Span,
    signal: AbortSignal,
  ): Promise<unknown[]> {
    const selection = select(mapping, { x: rows });
    const answer = await this.request({ selection, format: "json" }, signal);
    return JSON.parse(new TextDecoder().decode(answer)) as unknown[];
  }

  private async read(
    params: Record<string, string>,
    signal?: AbortSignal,
  ): Promise<NdArray<TypedArray>> {
    return parseNpy(await this.request({ ...params, format: "npy", dtype: "safe" }, signal));
  }

  private async request(
    params: Record<string, string>,
    signal?: AbortSignal,
  ): Promise<ArrayBuffer> {
    const query = { file: this.file, path: this.path, ...params };
    return this.fetcher(`${this.base}/data`, query, signal && { abortSignal: signal });
  }
}

/** Return the selection that a mapping and the spans along its axes mean. */
function select(mapping: DimensionMapping, spans: { x: Span; y?: Span }): string {
  return mapping
    .map((each) => {
      if (typeof each === "number") {
        return `${each}`;
      }
      const span = each === "x" ? spans.x : spans.y;
      return span === undefined ? ":" : `${span[0]}:${span[1]}`;
    })
    .join(",");
}

/** Return the transposed array, in C order. */
function turn(array: NdArray<TypedArray>): NdArray<TypedArray> {
  const [rows = 0, columns = 0] = array.shape;
  const turned = ndarray(array.data.slice(), [columns, rows]);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      turned.set(column, row, array.get(row, column));
    }
  }
  return turned;
}
