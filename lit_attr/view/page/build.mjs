// Bundles the page into ../static, or into the folder behind --out. The same sources give the same bytes.
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const asked = process.argv.indexOf("--out");
const out = asked < 0 ? resolve(here, "../static") : resolve(process.argv[asked + 1]);
mkdirSync(out, { recursive: true });

const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.ts", style: "src/style/index.css" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome100", "firefox102", "safari15.4"],
  charset: "utf8",
  metafile: true,
  logLevel: "warning",
});

for (const name of ["index.html", "icon.svg"]) copyFileSync(join(here, "src", name), join(out, name));

// Minifying drops the licences of what is bundled: they are kept beside it.
const packages = [...new Set(Object.keys(metafile.inputs).flatMap((path) => /node_modules\/([^/]+)/.exec(path)?.[1] ?? []))];
const licences = packages.sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((one) => join(folder, one)).find(existsSync);
  if (!file) throw new Error(`${name} has no licence file`);
  return `${name} ${version} (${license})\n\n${readFileSync(file, "utf8").trim()}\n`;
});
writeFileSync(join(out, "LICENSES.txt"), `app.js contains parts of these libraries.\n\n${licences.join(`\n${"-".repeat(80)}\n\n`)}`);
