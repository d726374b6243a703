/** What the result is of, and how much it covers. */

import { h } from "./dom";
import { bytes, whole } from "./format";
import type { About } from "./types";

/** A name for the result: its run, and the harvest's folder. */
export function nameOf(about: About): string {
  const run = about.provenance?.run_id;
  const folder = about.file.split("/").at(-2) ?? "";
  return typeof run === "string" ? run : folder || about.file;
}

export function coverageOf(about: About): string {
  if (about.partial) return `partial: ${about.partial}`;
  return about.provenance?.coverage ? "complete" : "coverage not recorded";
}

/** The page about the result. */
export function aboutPanel(about: About): HTMLElement {
  const provenance = about.provenance ?? {};
  const rows: [string, string | null][] = [
    ["file", about.file],
    ["size", bytes(about.size)],
    ["run", text(provenance.run_id)],
    ["reference", text(provenance.run_reference)],
    ["harvested", text(provenance.created)],
    ["by lit_attr", text(provenance.lit_attr_version)],
    ["tokens", whole(about.n_tokens)],
    ["coverage", coverageOf(about)],
    ["metrics", about.why_no_abs ? `attr; ${about.why_no_abs}` : about.abs_sample ? `attr; ${about.abs_sample}` : "attr, attr_abs"],
    ["standard errors", about.why_no_errors ? `none: ${about.why_no_errors}` : about.standard_errors === "file order" ? "of this text in the order of its file alone: rows were not drawn at random" : "of other text of the same kind: rows were drawn at random"],
    ["CI threshold", String(about.ci_threshold)],
    ["numbers", about.rounding],
    ["precision", text(provenance.precision)],
    ["engine", text(provenance.engine)],
    ["weights digest", text(provenance.weights_digest)],
    ["tokenizer", about.tokenizer ?? "none was found: tokens are shown by their ids"],
    ["edges", about.n_kept === null ? null : `the strongest alone: at most ${whole(about.n_kept)} of each list`],
    ["index", about.n_kept !== null ? null : about.indexed ? "yes" : "none; lit-attr index makes questions to a large result fast"],
  ];
  const shown = rows.filter(([, value]) => value !== null);
  const layers = about.layers.map(({ layer, size, n_not_harvested: missing }) =>
    h("tr", {}, h("th", { scope: "row" }, layer), h("td", {}, whole(size)), h("td", {}, missing === null || layer === "embed" ? "" : whole(size - missing))),
  );
  return h(
    "div",
    { class: "about" },
    h(
      "section",
      { class: "card" },
      h("h2", {}, "This result"),
      h("dl", {}, ...shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    ),
    h(
      "section",
      { class: "card" },
      h("h2", {}, "Layers"),
      h(
        "table",
        { class: "layers" },
        h("thead", {}, h("tr", {}, ...["layer", "size", "targets"].map((head) => h("th", { scope: "col" }, head)))),
        h("tbody", {}, ...layers),
      ),
    ),
    h(
      "section",
      { class: "card wide" },
      h("h2", {}, "Provenance"),
      about.provenance
        ? h("pre", { class: "json", tabindex: 0 }, JSON.stringify(provenance, null, 1).replace(/\[[\d\s,]+\]/g, (list) => list.replace(/\s+/g, " ")))
        : h("p", { class: "none" }, "The file does not say where it comes from."),
    ),
  );
}

function text(value: unknown): string | null {
  return value === null || value === undefined ? null : String(value);
}
