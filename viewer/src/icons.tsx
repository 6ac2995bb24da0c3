/** The icons of the page: lines of 1.5 in a square of 16, in the colour of the text. */

const PATHS = {
  folder: "M1.75 12.5V3.5h4l1.5 2h7v7z",
  file: "M3.5 1.75h6l3 3v9.5h-9zM9.25 1.75v3.25h3.25M5.75 8h4.5M5.75 11h4.5",
  other: "M3.5 1.75h6l3 3v9.5h-9zM9.25 1.75v3.25h3.25",
  search: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.5 10.5l3.5 3.5",
  close: "M4 4l8 8M12 4l-8 8",
  up: "M8 13V3.5M4 7l4-4 4 4",
  left: "M10 3L5 8l5 5",
  list: "M2.25 2.75h11.5v10.5H2.25zM6.5 2.75v10.5",
  link: "M6.5 9.5l3-3M7 4.5l1.2-1.2a3 3 0 0 1 4.3 4.3L11.3 8.8M9 11.5l-1.2 1.2a3 3 0 0 1-4.3-4.3L4.7 7.2",
  done: "M3 8.5l3.5 3.5L13 4.5",
  keyboard: "M1.75 4h12.5v8.5H1.75zM4 6.5h1M7.5 6.5h1M11 6.5h1M4.5 10h7",
  light: "M8 10.75a2.75 2.75 0 1 0 0-5.5 2.75 2.75 0 0 0 0 5.5zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  dark: "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z",
  system: "M1.75 2.75h12.5v8.5H1.75zM5.5 13.75h5",
  warning: "M8 2L14.5 13.5h-13zM8 6.5v3.25M8 11.25v.75",
  lock: "M3.75 7.25h8.5v6.5h-8.5zM5.5 7.25V5a2.5 2.5 0 0 1 5 0v2.25",
  offline: "M2 2l12 12M5.2 8.3A4.5 4.5 0 0 1 7 7.5M2.5 5.8a8 8 0 0 1 2-1.3M8.5 4a8 8 0 0 1 5 1.8M10 7.8c.3.2.6.4.8.6M8 12h.1",
  reload: "M13 8a5 5 0 1 1-1.5-3.5L13 6M13 2.5V6H9.5",
} as const;

export type IconName = keyof typeof PATHS;

/** An icon beside a text that says the same, so that it says nothing to a screen reader. */
export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
