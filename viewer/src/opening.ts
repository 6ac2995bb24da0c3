/** Whether the values of a file that was just opened are still to come: what can wait, waits. */

/** How long to wait at most: a file may have nothing to draw, in milliseconds. */
const LONGEST_MS = 1000;

let opened = Promise.resolve();
let resolve = () => {};

/** Note that a file is being opened. */
export function noteOpening(): void {
  resolve();
  opened = new Promise((done) => {
    resolve = done;
    setTimeout(done, LONGEST_MS);
  });
}

/** Note that the values that are shown first have come. */
export function noteOpened(): void {
  resolve();
}

/** Wait until no file is being opened. */
export function waitUntilOpened(): Promise<void> {
  return opened;
}
