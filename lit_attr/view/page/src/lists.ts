/** Lists of neighbours and of edges. */

import { h } from "./dom";
import { brief, indexOf, layerOf, magnitude, named, signed, whole } from "./format";
import type { Direction, Edge, Neighbour, Neighbours, NotHeld, OneWay, Sign } from "./types";

const TITLES: Record<Direction, [string, string]> = {
  sources: ["Sources", "what feeds it"],
  targets: ["Targets", "what it feeds"],
};
const SIGNS = ["positive", "negative"] as const;

export interface ListOptions {
  sign: Sign;
  rows: number;
  step: (key: string) => void;
}

/** The strongest sources and targets of a component or token, each in a table for each sign. */
export function neighbourLists(found: Neighbours, options: ListOptions): HTMLElement[] {
  return (["sources", "targets"] as const).map((direction) => {
    const [title, text] = TITLES[direction];
    const way = found[direction];
    const content = way.none ? [h("p", { class: "none" }, capital(way.none))] : tables(direction, way, options);
    const isUnknown = direction === "sources" && found.was_harvested === false;
    const shown = isUnknown ? [h("p", { class: "none" }, "Not harvested: it was no target, so that what feeds it was not measured.")] : content;
    const missing = direction === "targets" ? notMeasured(way.n_not_harvested) : null;
    return h("section", { class: "list", "aria-label": title }, h("h3", {}, title, h("small", {}, text)), ...shown, missing);
  });
}

/** Which targets cannot appear; null where all can. */
export function notMeasured(count: number, size?: number, layer?: string): HTMLElement | null {
  if (!count) return null;
  const which = layer === undefined ? whole(count) : `${whole(count)} of ${whole(size ?? 0)}`;
  const what = count === 1 ? "component was no target of the harvest and" : "components were no targets of the harvest and";
  return h("p", { class: "none missing" }, `${which} ${layer === undefined ? "" : `${layer} `}${what} cannot appear here.`);
}

/** What was dropped where the result keeps the strongest edges alone; null where nothing is missing. */
export function notKept(dropped: NotHeld | null | undefined): HTMLElement | null {
  if (!dropped) return null;
  const what = dropped.n === 1 ? "edge is" : "edges are";
  return h("p", { class: "none missing" }, `Weaker ones were not kept: ${whole(dropped.n)} ${what} not held, with magnitudes of ${magnitude(dropped.mass)} together.`);
}

function tables(direction: Direction, way: OneWay, { sign, rows, step }: ListOptions): (HTMLElement | null)[] {
  // One scale for both signs: bars can be compared.
  const largest = Math.max(...SIGNS.map((one) => Math.abs(way[one][0]?.value ?? 0)));
  return SIGNS.filter((one) => sign === "both" || sign === one).flatMap((one) => {
    const missing = rows > way[one].length ? notKept(way.not_held[one]) : null;
    if (way[one].length) return [neighbourTable(`${one} ${direction}`, way[one].slice(0, rows), largest, step), missing];
    return [missing ?? h("p", { class: "none" }, `No ${one} ${direction}.`)];
  });
}

function neighbourTable(caption: string, entries: Neighbour[], largest: number, step: (key: string) => void): HTMLElement {
  const rows = entries.map((entry) =>
    h(
      "tr",
      {},
      h("td", {}, keyButton(entry.component_key, entry.token, step)),
      h("td", { class: "layer" }, entry.layer),
      valueCell(entry.value, largest),
    ),
  );
  return table(caption, ["component or token", "layer", "value"], rows);
}

/** A table of edges, strongest first; with `inspect` a value is a button that tells more of its edge. */
export function edgeTable<One extends Edge>(caption: string, edges: One[], step: (key: string) => void, inspect?: (edge: One) => void): HTMLElement {
  const largest = Math.max(...edges.map(({ value }) => Math.abs(value)), 0);
  const rows = edges.map((edge) =>
    h(
      "tr",
      {},
      h("td", {}, keyButton(edge.source, edge.source_token, step, true)),
      h("td", {}, keyButton(edge.target, edge.target_token, step, true)),
      valueCell(edge.value, largest, inspect && (() => inspect(edge))),
    ),
  );
  return table(caption, ["source", "target", "value"], rows);
}

function table(caption: string, heads: string[], rows: HTMLElement[]): HTMLElement {
  return h(
    "table",
    {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, ...rows),
  );
}

/** A button that steps to a component or token; without its layer where that stands beside it. */
function keyButton(key: string, token: string | null, step: (key: string) => void, withLayer = false): HTMLElement {
  const shown = withLayer ? `${layerOf(key)}:${indexOf(key)}` : `:${indexOf(key)}`;
  return h(
    "button",
    { type: "button", class: "step", title: `Step to ${named(key, token)}`, "data-key": key, onclick: () => step(key) },
    token === null ? null : h("span", { class: "token" }, brief(token)),
    h("span", { class: "key" }, token === null && !withLayer ? key : shown),
  );
}

function valueCell(value: number, largest: number, inspect?: () => void): HTMLElement {
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.width = `${largest ? Math.max((Math.abs(value) / largest) * 100, 1) : 0}%`;
  const sign = value < 0 ? "negative" : "positive";
  const number = inspect
    ? h("button", { type: "button", class: "number", title: "By both metrics, raw and normalised", onclick: inspect }, signed(value))
    : h("span", { class: "number" }, signed(value));
  return h("td", { class: `value ${sign}` }, number, h("span", { class: "track" }, bar));
}

function capital(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
