/** How large what h5web asks for is, known before it is asked for; pure. */

/** An entity as `/meta` shows it. */
export interface EntityDocument {
  readonly name: string;
  readonly kind: string;
  readonly shape?: number[] | null;
  readonly type?: TypeDocument;
  readonly attributes?: { name: string }[];
  readonly children?: EntityDocument[];
}

export interface TypeDocument {
  readonly class: number;
  readonly dtype: string;
  readonly size: number;
}

export interface DatasetSize {
  readonly path: string;
  readonly shape: number[];
  /** Bytes of an element as it is sent to h5web. */
  readonly itemBytes: number;
  /** Whether the values are numbers that can be drawn: integers, floats, enumerations, booleans. */
  readonly isNumeric: boolean;
  readonly dtype: string;
}

/** Of values that h5web may ask for at once, in bytes: more stops a tab for seconds. */
export const MAX_WHOLE_BYTES = 64 * 2 ** 20;

/** Of points of one line, and of elements that are shown as text. */
export const MAX_LINE_POINTS = 2_000_000;
export const MAX_TEXT_ELEMENTS = 100_000;

const NUMERIC_CLASSES = new Set([0, 1, 8]);
/** What text takes: numbers in JSON, strings, members of compounds. */
const TEXT_BYTES = 16;

/** Return the datasets that the document of an entity describes: itself and its children. */
export function listDatasets(path: string, entity: EntityDocument): DatasetSize[] {
  const prefix = path === "/" ? "/" : `${path}/`;
  const children = entity.children?.map((each) => [`${prefix}${each.name}`, each] as const) ?? [];
  return [[path, entity] as const, ...children].flatMap(([place, each]) => {
    if (each.kind !== "dataset" || !each.shape || each.type === undefined) {
      return [];
    }
    const isNumeric = NUMERIC_CLASSES.has(each.type.class);
    const itemBytes = isNumeric ? each.type.size : Math.max(each.type.size, TEXT_BYTES);
    return [{ path: place, shape: each.shape, itemBytes, isNumeric, dtype: each.type.dtype }];
  });
}

/** Return how many elements along each axis a selection of integers and slices keeps. */
export function measureSelection(shape: number[], selection?: string): number[] {
  if (!selection) {
    return shape;
  }
  const parts = selection.split(",");
  return shape.flatMap((length, axis) => {
    const part = parts[axis]?.trim() ?? ":";
    const slice = /^(\d*):(\d*)(?::(\d*))?$/.exec(part);
    if (slice === null) {
      return [];
    }
    const [, first, stop, step] = slice;
    const count = Math.min(length, stop ? Number(stop) : length) - Number(first || 0);
    return [Math.max(0, Math.ceil(count / Number(step || 1)))];
  });
}

export function countElements(lengths: number[]): number {
  return lengths.reduce((product, each) => product * each, 1);
}

/** Return whether what a selection keeps is more than a browser draws without stopping. */
export function isTooLarge(dataset: DatasetSize, selection?: string): boolean {
  const lengths = measureSelection(dataset.shape, selection);
  const count = countElements(lengths);
  if (!dataset.isNumeric) {
    return count > MAX_TEXT_ELEMENTS;
  }
  return (
    count * dataset.itemBytes > MAX_WHOLE_BYTES || (lengths.length === 1 && count > MAX_LINE_POINTS)
  );
}

/** Return a shape for people: `10 × 6000 × 8000`. */
export function formatShape(shape: number[]): string {
  return shape.length ? shape.join(" × ") : "scalar";
}
