/** Lines of Python that read what is shown, to paste into a notebook; pure. */

import { type FileName, showFileName } from "../names";

/** As Python has them; the token is a variable. */
const HEADERS = '{"Authorization": f"Bearer {token}"}';

export interface Shown {
  /** Where the service is, without a slash at the end. */
  readonly base: string;
  readonly file: FileName;
  readonly path: string;
  readonly selection: string;
  /** Whether requests need a token. */
  readonly hasToken: boolean;
}

export interface Snippet {
  readonly label: string;
  readonly code: string;
}

/** Return how to read it with NumPy, xarray and h5py. */
export function writeSnippets(shown: Shown): Snippet[] {
  // Not the token itself: what is pasted into a notebook is kept, and shown to others.
  const first = shown.hasToken ? 'import os\n\ntoken = os.environ["ASGIHIVE_TOKEN"]\n' : "";
  return [
    { label: "NumPy", code: first + writeNumpy(shown) },
    { label: "xarray", code: first + writeXarray(shown) },
    { label: "h5py", code: first + writeH5py(shown) },
  ];
}

function writeNumpy({ base, file, path, selection, hasToken }: Shown): string {
  const entries = [
    `"file": ${quote(showFileName(file))}`,
    `"path": ${quote(path)}`,
    ...(selection ? [`"selection": ${quote(selection)}`] : []),
    '"format": "npy"',
  ];
  const headers = hasToken ? `, headers=${HEADERS}` : "";
  return [
    "import io, numpy, requests",
    "",
    `query = {${entries.join(", ")}}`,
    `answer = requests.get(${quote(`${base}/data`)}, params=query${headers})`,
    "answer.raise_for_status()",
    "values = numpy.load(io.BytesIO(answer.content))",
  ].join("\n");
}

function writeXarray({ base, file, path, selection, hasToken }: Shown): string {
  const slash = path.lastIndexOf("/");
  const group = path.slice(0, slash) || "/";
  const options = hasToken ? `, storage_options={"headers": ${HEADERS}}` : "";
  const url = `${base}/zarr/${file}`;
  return [
    "import xarray",
    "",
    `tree = xarray.open_datatree(${quote(url)}, engine="zarr"${options})`,
    `values = tree[${quote(group)}][${quote(path.slice(slash + 1))}]${formatIndex(selection)}`,
  ].join("\n");
}

function writeH5py({ base, file, path, selection, hasToken }: Shown): string {
  const headers = hasToken ? `, headers=${HEADERS}` : "";
  const url = `${base}/file/${file}`;
  return [
    "import fsspec, h5py",
    "",
    `with fsspec.open(${quote(url)}${headers}) as remote, h5py.File(remote) as file:`,
    `    values = file[${quote(path)}]${formatIndex(selection) || "[()]"}`,
  ].join("\n");
}

/** Return a selection behind a name in Python; of a selection that keeps all, nothing. */
function formatIndex(selection: string): string {
  return /^[:,\s]*$/.test(selection) ? "" : `[${selection}]`;
}

/** Return a text as a Python literal: JSON's escapes are Python's too. */
function quote(text: string): string {
  return JSON.stringify(text);
}
