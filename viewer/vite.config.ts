import react from "@vitejs/plugin-react";
import { defineConfig, type HtmlTagDescriptor, type Plugin } from "vite";

/**
 * Lets the browser fetch h5web while it still runs the page around it.
 *
 * The two are apart, so that the list is there before h5web is.
 */
function preloadFileView(): Plugin {
  return {
    name: "preload-file-view",
    transformIndexHtml: {
      order: "post",
      handler(_, { bundle = {} }) {
        const tags: HtmlTagDescriptor[] = [];
        for (const { type, fileName } of Object.values(bundle)) {
          if (/\/FileView-[^/]*\.(js|css)$/.test(fileName)) {
            const attrs =
              type === "chunk"
                ? { rel: "modulepreload", crossorigin: true, href: `./${fileName}` }
                : { rel: "preload", as: "style", crossorigin: true, href: `./${fileName}` };
            tags.push({ tag: "link", attrs, injectTo: "head" });
          }
        }
        return tags;
      },
    },
  };
}

export default defineConfig({
  // Relative URLs work below any prefix.
  base: "./",
  plugins: [react(), preloadFileView()],
  build: {
    outDir: "../asgihive/viewer/dist",
    emptyOutDir: true,
    chunkSizeWarningLimit: 2000,
  },
});
