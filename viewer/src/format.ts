/** Numbers and dates as text for people, in the language of the browser. */

const UNITS = ["byte", "kB", "MB", "GB", "TB", "PB"] as const;

const sameDay = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const sameYear = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const otherYear = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  year: "numeric",
});
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const counted = new Intl.NumberFormat();

/** Return a size with three digits at most, in powers of 1000: "0 B", "3.41 MB". */
export function formatSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  if (unit === 0) {
    return `${bytes} B`;
  }
  const digits = value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  const text = value.toLocaleString(undefined, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return `${text} ${UNITS[unit]}`;
}

/** Return a moment as short as it can be read: today's as a time, older ones with their day. */
export function formatMoment(iso: string, now: Date): string {
  const moment = new Date(iso);
  if (moment.toDateString() === now.toDateString()) {
    return sameDay.format(moment);
  }
  return (moment.getFullYear() === now.getFullYear() ? sameYear : otherYear).format(moment);
}

/** Return a moment with everything that is known of it. */
export function formatExactly(iso: string): string {
  return exact.format(new Date(iso));
}

export function formatCount(count: number): string {
  return counted.format(count);
}
