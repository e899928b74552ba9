import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const RUNTIME = "onnxruntime.wasm.gz";

/**
 * ONNX Runtime's code is by far the largest file, and few static hosts compress what they serve: it is
 * compressed here and unpacked in the page.
 */
function compressedRuntime(): Plugin {
  return {
    name: "compressed-runtime",
    enforce: "post",
    generateBundle(_options, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        if (file.type !== "asset" || !name.endsWith(".wasm")) continue;
        Reflect.deleteProperty(bundle, name);
        const source = gzipSync(file.source, { level: 9 });
        this.emitFile({ type: "asset", fileName: RUNTIME, source });
      }
    },
  };
}

/** One file of the player, beside the page that shows it; both go into the Python package. */
export default defineConfig({
  base: "./",
  // What is taken from others says so in the file that is shipped.
  esbuild: { legalComments: "inline" },
  plugins: [compressedRuntime()],
  build: {
    outDir: "../src/vasa3d/assets/web",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      input: { player: "src/index.ts", page: "src/page/page.ts", thin: "src/page/thin.ts" },
      preserveEntrySignatures: "strict",
      output: {
        entryFileNames: "[name].js",
        chunkFileNames: "[name].js",
        assetFileNames: "[name][extname]",
      },
    },
  },
  worker: {
    format: "es",
    rollupOptions: { output: { entryFileNames: "speech.js", assetFileNames: "[name][extname]" } },
  },
});
