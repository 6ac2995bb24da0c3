/** h5web by itself, as its documentation shows it over h5grove: what benchmarks measure beside. */

import "@h5web/app/styles.css";

import { App, H5GroveProvider } from "@h5web/app";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);

createRoot(document.getElementById("root")!).render(
  <H5GroveProvider url={location.origin} filepath={query.get("file") ?? ""}>
    <App initialPath={query.get("path") ?? "/"} />
  </H5GroveProvider>,
);
