/** What a request to the service may fail with, sorted by what the reader can do about it. */

export type Problem =
  /** The service wants a token, or another one. */
  | "token"
  /** The service may not, or must not, read it. */
  | "permission"
  /** There is no such file or directory. */
  | "missing"
  /** The file is there, but not the object in it. */
  | "no-entity"
  /** The file is no HDF5 file, or too damaged to open. */
  | "damaged"
  /** The file changed while it was read. */
  | "changed"
  /** Too many requests wait, or the read took too long. */
  | "busy"
  /** No service answers. */
  | "gone"
  /** Anything else; the message says what. */
  | "failed";

export class ServiceError extends Error {
  readonly problem: Problem;
  /** The HTTP status; 0 where there was no response. */
  readonly status: number;
  /** How long the service asks to wait, in seconds; null where it did not say. */
  readonly retryAfter: number | null;

  constructor(problem: Problem, message: string, status = 0, retryAfter: number | null = null) {
    super(message);
    this.name = "ServiceError";
    this.problem = problem;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Return the error that a response which is not OK stands for. */
export async function readError(response: Response): Promise<ServiceError> {
  const message = await readMessage(response);
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const retryAfter = Number.isNaN(wait) ? null : wait;
  if (message === null) {
    // A proxy answers for a service that it does not reach, and not as JSON.
    const isProxy = [502, 503, 504].includes(response.status);
    const text = `${response.status} ${response.statusText}`.trim();
    return new ServiceError(isProxy ? "gone" : "failed", text, response.status, retryAfter);
  }
  return new ServiceError(classify(response.status, message), message, response.status, retryAfter);
}

/** Return whether an error says that its request was aborted, which nobody has to be told. */
export function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}

/** Return any thrown value as an error of the service. */
export function toServiceError(error: unknown): ServiceError {
  if (error instanceof ServiceError) {
    return error;
  }
  return new ServiceError("failed", error instanceof Error ? error.message : String(error));
}

function classify(status: number, message: string): Problem {
  if (status === 401) {
    return "token";
  }
  if (status === 403) {
    return "permission";
  }
  if (status === 404) {
    return message.includes("File not found") ? "missing" : "no-entity";
  }
  if (status === 422 && message.includes("not a readable HDF5 file")) {
    return "damaged";
  }
  if (status === 503 && /\bchang/.test(message)) {
    return "changed";
  }
  return status === 503 || status === 504 ? "busy" : "failed";
}

async function readMessage(response: Response): Promise<string | null> {
  try {
    const body: unknown = await response.json();
    if (typeof body === "object" && body !== null && "message" in body) {
      return typeof body.message === "string" ? body.message : null;
    }
  } catch {
    return null;
  }
  return null;
}
