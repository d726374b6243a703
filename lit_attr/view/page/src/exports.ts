/** Saving the picture and the edges that are shown. */

import { UNSURE } from "./drawing";
import { meaningOf } from "./estimates";
import { magnitude } from "./format";
import type { State } from "./state";
import type { About, DrawnEdge } from "./types";

/** What a style sheet gives an element of the drawing; in a file of its own it must stand at the element. */
const STYLES = [
  ...["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "stroke-linejoin", "stroke-linecap", "opacity"],
  ...["font-family", "font-size", "font-weight", "text-anchor", "paint-order"],
];
const PNG_SCALE = 2;
const NOTE_HEIGHT = 26;

/** The drawing as an SVG that needs nothing else, in the colours of paper. */
export function svgText(svg: SVGSVGElement, caption: string): string {
  const copy = svg.cloneNode(true) as SVGSVGElement;
  const paper = document.createElement("div");
  paper.className = "paper";
  paper.append(copy);
  document.body.append(paper);
  try {
    copy.querySelectorAll(".touch").forEach((one) => {
      one.previousElementSibling?.append(...one.children); // what an edge is called, with its interval
      one.remove();
    });
    copy.firstElementChild?.removeAttribute("transform");
    if (copy.querySelector(".link.unsure")) addNote(copy, `dotted: ${UNSURE}`);
    const elements = [...copy.querySelectorAll<SVGElement>("*")];
    for (const element of elements) {
      const computed = getComputedStyle(element);
      for (const name of STYLES) element.style.setProperty(name, computed.getPropertyValue(name));
    }
    // Only now: rules name the classes of what is around an element, too.
    for (const element of elements) {
      for (const name of ["class", "tabindex", "role", "data-key", "aria-label"]) element.removeAttribute(name);
    }
    const background = getComputedStyle(paper).backgroundColor;
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.removeAttribute("class");
    const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: background })) box.setAttribute(name, value);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = caption;
    copy.prepend(title, box);
    return new XMLSerializer().serializeToString(copy);
  } finally {
    paper.remove();
  }
}

/** A line of text below a picture. */
function addNote(svg: SVGSVGElement, text: string): void {
  const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name))) as [number, number];
  const note = document.createElementNS("http://www.w3.org/2000/svg", "text");
  for (const [name, value] of Object.entries({ class: "note", x: 10, y: height + NOTE_HEIGHT / 2 })) note.setAttribute(name, String(value));
  note.textContent = text;
  svg.setAttribute("height", String(height + NOTE_HEIGHT));
  svg.setAttribute("viewBox", `0 0 ${width} ${height + NOTE_HEIGHT}`);
  svg.append(note);
}

export function saveSvg(svg: SVGSVGElement, caption: string, name: string): void {
  save(new Blob([svgText(svg, caption)], { type: "image/svg+xml" }), `${name}.svg`);
}

export async function savePng(svg: SVGSVGElement, caption: string, name: string): Promise<void> {
  const address = URL.createObjectURL(new Blob([svgText(svg, caption)], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width * PNG_SCALE;
    canvas.height = image.height * PNG_SCALE;
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    if (blob) save(blob, `${name}.png`);
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** From which share of the sequences the values are; null where they are from all of them. */
function sampleOf({ metric }: State, about: About): string | null {
  return metric === "attr_abs" ? about.abs_sample : null;
}

/** What an exported picture or list shows, in plain types; steps and pins without those that the result has not. */
export function described(state: State, about: About, missing: string[]): Record<string, unknown> {
  const [walk, pins] = [state.walk, state.pins].map((keys) => keys.filter((one) => !missing.includes(one)));
  const { key, metric, sign, raw, components, sure, k, depth, threshold } = state;
  const neighbours = components ? "components" : "all";
  const of = { file: about.file, n_tokens: about.n_tokens, partial: about.partial, rounding: about.rounding, standard_errors: about.standard_errors };
  return { ...of, key, walk, pins, metric, sample: sampleOf(state, about), sign, normalized: !raw, neighbours, sure, k, depth, threshold };
}

/** What an exported picture shows, in words. */
export function captioned(state: State, about: About, missing: string[]): string {
  const { key, metric, sign, raw, components, k, depth, threshold } = state;
  const { walk, pins } = described(state, about, missing) as { walk: string[]; pins: string[] };
  const parts = [
    `${key}: ${metric}, ${raw ? "raw sums" : "normalised"}, ${sign === "both" ? "both signs" : sign}, ${components ? "components only" : "all neighbours"}`,
    state.sure && `without edges that are ${UNSURE}`,
    `k ${k}, ${depth} ${depth === 1 ? "step" : "steps"} away, from magnitude ${magnitude(threshold)}`,
    walk.length && `walked from ${walk.join(", ")}`,
    pins.length && `pinned ${pins.join(", ")}`,
    about.partial && `partial: ${about.partial}`,
    sampleOf(state, about),
    about.rounding,
    meaningOf(about)?.replace(/\.$/, ""),
    about.file,
  ];
  return parts.filter(Boolean).join("; ");
}

const COLUMNS = ["source", "source_token", "target", "target_token", "value", "walked"] as const;
/** Of a CSV, `low` and `high` are the ends of the 95 % interval. */
const HOW_SURE = ["standard_error", "n_groups", "few_groups"] as const;

export function saveCsv({ metric, raw }: State, edges: DrawnEdge[], name: string): void {
  const cell = (value: string | number | boolean | null): string => {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const head = [...COLUMNS, "metric", "normalized", ...HOW_SURE, "low", "high"].join(",");
  const lines = edges.map((edge) => {
    const [low, high] = edge.interval ?? [null, null];
    return [...COLUMNS.map((column) => edge[column]), metric, !raw, ...HOW_SURE.map((column) => edge[column]), low, high].map(cell).join(",");
  });
  save(new Blob([`${[head, ...lines].join("\n")}\n`], { type: "text/csv" }), `${name}.csv`);
}

export function saveJson(head: Record<string, unknown>, edges: DrawnEdge[], name: string): void {
  const plain = edges.map((edge) => Object.fromEntries([...COLUMNS, ...HOW_SURE, "interval" as const].map((column) => [column, edge[column]])));
  save(new Blob([`${JSON.stringify({ ...head, edges: plain }, null, 1)}\n`], { type: "application/json" }), `${name}.json`);
}

function save(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
