import { defineConfig } from "vite";

/** One file of the player, beside the page that shows it; both go into the Python package. */
export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/vasa3d/assets/web",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      input: { player: "src/index.ts", page: "src/page/page.ts" },
      preserveEntrySignatures: "strict",
      output: {
        entryFileNames: "[name].js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
  worker: { format: "es" },
});
