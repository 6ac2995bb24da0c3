/** What happens to a file while it is looked at, as `/events` tells it (HTML, 9.2.6). */

import { useEffect, useRef, useState } from "react";

import { request } from "../api";
import { ServiceError } from "../errors";
import type { FileName } from "../names";

/** How long to wait before asking again, where the service does not say, in milliseconds. */
const RETRY_MS = 3000;

export interface ServerEvent {
  readonly type: string;
  readonly data: string;
}

/** What a stream says beside its events. */
export interface StreamNotes {
  /** How long to wait before connecting again, in milliseconds. */
  readonly retry: (milliseconds: number) => void;
  /** What to send as `Last-Event-ID` then. */
  readonly id: (id: string) => void;
}

/** What is known of a file that is followed. */
export interface LiveState {
  /** Whether the service would tell of a change now. */
  readonly isConnected: boolean;
  /** How often the file changed since it was opened. */
  readonly changes: number;
  /** The shape of the dataset, where it grew. */
  readonly shape: readonly number[] | null;
  readonly isGone: boolean;
}

const BEGINNING: LiveState = { isConnected: false, changes: 0, shape: null, isGone: false };

/** Follow a file, and the dataset at a path in it, while the component is there. */
export function useLive(file: FileName, path: string): LiveState {
  const [state, setState] = useState(BEGINNING);
  const lastId = useRef("");

  useEffect(() => {
    const controller = new AbortController();
    setState((before) => ({ ...before, shape: null }));
    void follow(file, path, lastId, controller.signal, (change) => {
      if (!controller.signal.aborted) {
        setState((before) => ({ ...before, ...change(before) }));
      }
    });
    return () => controller.abort();
  }, [file, path]);
  return state;
}

type Change = (before: LiveState) => Partial<LiveState>;

async function follow(
  file: FileName,
  path: string,
  lastId: { current: string },
  signal: AbortSignal,
  tell: (change: Change) => void,
): Promise<void> {
  let wait = RETRY_MS;
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (lastId.current !== "") {
        headers["Last-Event-ID"] = lastId.current;
      }
      const response = await request("events", { file, path }, { signal, headers });
      tell(() => ({ isConnected: true }));
      const note = { retry: (ms: number) => (wait = ms), id: (id: string) => (lastId.current = id) };
      for await (const event of readEvents(response, note)) {
        tell(applyEvent(event));
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      if (error instanceof ServiceError && ["missing", "permission"].includes(error.problem)) {
        tell(() => ({ isConnected: false, isGone: error.problem === "missing" }));
      } else if (error instanceof ServiceError && error.status === 404) {
        return; // a service without events
      }
    }
    tell(() => ({ isConnected: false }));
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

function applyEvent({ type, data }: ServerEvent): Change {
  if (type === "grown") {
    const { shape } = JSON.parse(data) as { shape: number[] };
    return () => ({ shape, isGone: false });
  }
  if (type === "changed") {
    return ({ changes }) => ({ changes: changes + 1, isGone: false });
  }
  return () => (type === "gone" ? { isGone: true } : {});
}

/** Yield the events of a response; comments, which keep the connection open, are none. */
export async function* readEvents(
  response: Response,
  note: StreamNotes,
): AsyncGenerator<ServerEvent> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  if (reader === undefined) {
    return;
  }
  let rest = "";
  let [type, data] = ["message", ""];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line === "") {
        if (data !== "") {
          yield { type, data: data.replace(/\n$/, "") };
        }
        [type, data] = ["message", ""];
        continue;
      }
      const [, name, field = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? [];
      if (name === "event") {
        type = field;
      } else if (name === "data") {
        data += `${field}\n`;
      } else if (name === "id") {
        note.id(field);
      } else if (name === "retry" && /^\d+$/.test(field)) {
        note.retry(Number(field));
      }
    }
  }
}
