// Reads arrays by zarrita.js, the same way in Node and in a browser.

function format(value) {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  return value;
}

/** Return, by URL and path, what zarrita says of each array: its values, or its error. */
export async function readArrays(zarr, wanted) {
  const found = [];
  for (const [url, path, selection] of wanted) {
    try {
      const root = zarr.root(new zarr.FetchStore(url));
      const array = await zarr.open.v3(root.resolve(path), { kind: "array" });
      const chosen = selection?.map((each) => (Array.isArray(each) ? zarr.slice(...each) : each));
      const got = await zarr.get(array, chosen ?? null);
      // An element alone is no array.
      const values = got?.shape === undefined ? [got] : Array.from(got.data);
      found.push({
        dtype: array.dtype,
        dimensions: array.dimensionNames,
        shape: got?.shape ?? [],
        values: values.map(format),
        attributes: array.attrs,
      });
    } catch (error) {
      found.push({ error: `${error.name}: ${error.message}` });
    }
  }
  return found;
}

/** Return the paths of the nodes of a store, as its consolidated metadata have them. */
export async function listNodes(zarr, url) {
  const store = await zarr.withConsolidatedMetadata(new zarr.FetchStore(url), { format: "v3" });
  return store.contents().map((each) => each.path);
}
