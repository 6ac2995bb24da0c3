import "./page.css";

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Page } from "./page/Page";
import { applyTheme } from "./theme";

applyTheme();
createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
