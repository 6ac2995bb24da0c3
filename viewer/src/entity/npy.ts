/** NumPy's `npy` format, as the service writes it: little-endian, in C order. */

import ndarray, { type NdArray } from "ndarray";

type Numbers =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array;

/** Integers of 64 bits are converted, which views keep; half floats `dtype=safe` has converted. */
const ARRAYS: Record<string, new (buffer: ArrayBuffer) => Numbers> = {
  i1: Int8Array,
  u1: Uint8Array,
  b1: Uint8Array,
  i2: Int16Array,
  u2: Uint16Array,
  i4: Int32Array,
  u4: Uint32Array,
  f4: Float32Array,
  f8: Float64Array,
};

/**
 * Return the array that a file in npy format holds.
 *
 * @throws Error: it is no array of numbers that JavaScript has.
 */
export function parseNpy(file: ArrayBuffer): NdArray<Numbers> {
  const view = new DataView(file);
  const isLong = view.getUint8(6) > 1; // the version of the format
  const start = isLong ? 12 : 10;
  const length = isLong ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(file, start, length));
  const dtype = /'descr': '[<|=]([a-z]\d+)'/.exec(header)?.[1];
  const Long = dtype === "i8" ? BigInt64Array : dtype === "u8" ? BigUint64Array : undefined;
  const Values = dtype === undefined ? undefined : ARRAYS[dtype];
  const shape = /'shape': \(([^)]*)\)/.exec(header)?.[1];
  const isForeign = Values === undefined && Long === undefined;
  if (isForeign || shape === undefined || header.includes("'fortran_order': True")) {
    throw new Error(`These values cannot be drawn: ${header.trim()}`);
  }
  const lengths = shape
    .split(",")
    .filter((each) => each.trim() !== "")
    .map(Number);
  // A copy, since a view would have to begin at a multiple of the size of an element.
  const body = file.slice(start + length);
  const values = Values ? new Values(body) : Float64Array.from(new Long!(body), Number);
  return ndarray(values, lengths);
}
