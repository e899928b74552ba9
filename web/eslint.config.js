import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["node_modules/**", "dist/**"] },
  ...tseslint.configs.strict,
  {
    files: ["**/*.ts"],
    rules: {
      // Typed arrays are indexed everywhere, within bounds that are checked where files are read.
      "@typescript-eslint/no-non-null-assertion": "off",
    },
  },
);
