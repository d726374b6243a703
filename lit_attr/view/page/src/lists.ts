/** Lists of neighbours and of edges. */

import { h } from "./dom";
import { fewText, isEstimated, meaningOf } from "./estimates";
import { brief, indexOf, layerOf, magnitude, named, whole } from "./format";
import type { About, Direction, Edge, Estimated, Neighbour, Neighbours, NotHeld, OneWay, SaidOfLists, Sign } from "./types";
import { scaleOf, valueCell } from "./values";

const TITLES: Record<Direction, [string, string]> = {
  sources: ["Sources", "what feeds it"],
  targets: ["Targets", "what it feeds"],
};
const SIGNS = ["positive", "negative"] as const;

export interface ListOptions {
  sign: Sign;
  about: About;
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

/** All neighbours that were found. */
export function neighboursOf({ sources, targets }: Neighbours): Neighbour[] {
  return [sources, targets].flatMap((way) => SIGNS.flatMap((sign) => way[sign]));
}

/** Which targets cannot appear; null where all can. */
export function notMeasured(count: number, size?: number, layer?: string): HTMLElement | null {
  if (!count) return null;
  const which = layer === undefined ? whole(count) : `${whole(count)} of ${whole(size ?? 0)}`;
  const what = count === 1 ? "component was no target of the harvest and" : "components were no targets of the harvest and";
  return h("p", { class: "none missing" }, `${which} ${layer === undefined ? "" : `${layer} `}${what} cannot appear here.`);
}

/** What was dropped where the result keeps the strongest edges alone; null where nothing is missing. */
function notKept(dropped: NotHeld | null | undefined): HTMLElement | null {
  if (!dropped) return null;
  const what = dropped.n === 1 ? "edge is" : "edges are";
  return h("p", { class: "none missing" }, `Weaker ones were not kept: ${whole(dropped.n)} ${what} not held, with magnitudes of ${magnitude(dropped.mass)} together.`);
}

/**
 * What stands below the list of one sign: to which place its order is sure, and what it lacks.
 *
 * @param rows What is in it.
 * @param what What its rows are.
 */
export function belowList(about: About, said: SaidOfLists, sign: "positive" | "negative", rows: Estimated[], what: string): (HTMLElement | null)[] {
  const [n, unsure, separated] = [rows.length, said.n_unsure[sign] ?? 0, said.n_separated[sign] ?? null];
  const why = rows.some(({ few_groups }) => few_groups) ? "not all of them have intervals" : "no interval of the first ones lies beyond those of the others";
  const sure = typeof said.n_unsure[sign] === "number" ? "sure " : "";
  const missing = notKept(said.not_held[sign]);
  const first = separated === 1 ? "The interval of the first one lies" : `The intervals of the first ${separated} lie`;
  const order = separated ? `${first} beyond those of the others.` : `Their order is not sure: ${why}.`;
  return [
    n > 1 && separated !== null ? h("p", { class: "none order" }, order) : null,
    n || missing ? null : h("p", { class: "none" }, `No ${sure}${sign} ${what}.`),
    unsure ? h("p", { class: "none hidden-ones" }, hiddenText(unsure), n + unsure >= about.most_looked_at && " Weaker ones were not looked at.") : null,
    missing,
  ];
}

/** What is said where edges that are not sure are left out. */
export function hiddenText(count: number): string {
  return `${whole(count)} ${count === 1 ? "edge is" : "edges are"} hidden: not told apart from zero.`;
}

/** What intervals, and marks instead of them, mean; nothing where there are none. */
export function belowLists(about: About, shown: Estimated[]): (HTMLElement | null)[] {
  const meaning = shown.some(({ interval }) => interval) && meaningOf(about);
  const hasFew = shown.some(({ few_groups }) => few_groups);
  return [
    meaning ? h("p", { class: "none meaning" }, meaning) : null,
    hasFew ? h("p", { class: "none meaning" }, `few: ${fewText(about.few)}.`) : null,
  ];
}

function tables(direction: Direction, way: OneWay, { sign, about, step }: ListOptions): (HTMLElement | null)[] {
  // One scale for both signs: bars can be compared.
  const scale = scaleOf(SIGNS.flatMap((one) => way[one]));
  return SIGNS.filter((one) => sign === "both" || sign === one).flatMap((one) => [
    way[one].length ? neighbourTable(`${one} ${direction}`, way[one], { scale, few: about.few, separated: way.n_separated[one] }, step) : null,
    ...belowList(about, way, one, way[one], direction),
  ]);
}

/** How values are drawn: to which scale, below how many groups they have no interval, where their order is sure. */
interface Drawn {
  scale: number;
  few: number;
  separated?: number | null;
}

function neighbourTable(caption: string, entries: Neighbour[], { scale, few, separated }: Drawn, step: (key: string) => void): HTMLElement {
  const rows = entries.map((entry, place) =>
    h(
      "tr",
      { class: place + 1 === separated ? "separated" : null },
      h("td", {}, keyButton(entry.component_key, entry.token, step)),
      h("td", { class: "layer" }, entry.layer),
      valueCell(entry, scale, few),
    ),
  );
  return table(caption, ["component or token", "layer", "value"], rows, entries.some(isEstimated));
}

/** A table of edges, strongest first; with `inspect` a value is a button that tells more of its edge. */
export function edgeTable<One extends Edge>(caption: string, edges: One[], drawn: Omit<Drawn, "scale">, step: (key: string) => void, inspect?: (edge: One) => void): HTMLElement {
  const scale = scaleOf(edges);
  const rows = edges.map((edge, place) =>
    h(
      "tr",
      { class: place + 1 === drawn.separated ? "separated" : null },
      h("td", {}, keyButton(edge.source, edge.source_token, step, true)),
      h("td", {}, keyButton(edge.target, edge.target_token, step, true)),
      valueCell(edge, scale, drawn.few, inspect && (() => inspect(edge))),
    ),
  );
  return table(caption, ["source", "target", "value"], rows, edges.some(isEstimated));
}

function table(caption: string, heads: string[], rows: HTMLElement[], isEstimatedTable: boolean): HTMLElement {
  return h(
    "table",
    { class: isEstimatedTable ? "estimated" : null },
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

function capital(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
