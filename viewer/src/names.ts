/**
 * Names of files as they stand in URLs.
 *
 * A name may hold bytes that are not UTF-8. Only its percent-encoded form tells all of them, so
 * the page keeps that form, as `/files` gives it in `encoded`, and decodes it to show it.
 */

/** The percent-encoded path of a file or a directory below the served directory; "" is that one. */
export type FileName = string & { readonly brand: "FileName" };

export const ROOT = "" as FileName;

const UNRESERVED = /[A-Za-z0-9_.~/-]/;

/** Return a name that the service or an address gave percent-encoded, each byte encoded in the one way. */
export function parseFileName(encoded: string): FileName {
  return encodeBytes(decodeBytes(encoded));
}

/** Return the percent-encoded form of a name that is text. */
export function encodeFileName(text: string): FileName {
  return encodeBytes(new TextEncoder().encode(text));
}

/** Return a name as text to show; bytes that are not UTF-8 become U+FFFD. */
export function showFileName(name: FileName): string {
  return new TextDecoder().decode(decodeBytes(name));
}

/** Return the last segment of a name, as text to show. */
export function showLastSegment(name: FileName): string {
  return showFileName(name.slice(name.lastIndexOf("/") + 1) as FileName);
}

/** Return the directory of a file, or the one above a directory. */
export function findParent(name: FileName): FileName {
  return name.slice(0, Math.max(0, name.lastIndexOf("/"))) as FileName;
}

/** Return each directory on the way to a name and the name itself, without the served directory. */
export function listSteps(name: FileName): FileName[] {
  const segments = name.split("/").filter((segment) => segment !== "");
  return segments.map((_, index) => segments.slice(0, index + 1).join("/") as FileName);
}

function decodeBytes(encoded: string): Uint8Array {
  const bytes: number[] = [];
  const text = new TextEncoder().encode(encoded);
  for (let index = 0; index < text.length; index += 1) {
    const digits = String.fromCharCode(text[index + 1] ?? 0, text[index + 2] ?? 0);
    if (text[index] === 0x25 && /^[0-9A-Fa-f]{2}$/.test(digits)) {
      bytes.push(Number.parseInt(digits, 16));
      index += 2;
    } else {
      bytes.push(text[index] ?? 0);
    }
  }
  return Uint8Array.from(bytes);
}

function encodeBytes(bytes: Uint8Array): FileName {
  let encoded = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte);
    encoded += UNRESERVED.test(character)
      ? character
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return encoded as FileName;
}
