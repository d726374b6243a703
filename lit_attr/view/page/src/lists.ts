/** Lists of neighbours and of edges. */

import { h } from "./dom";
import { hiddenText, isSure, isUnsure, orderOf, saying } from "./estimates";
import { brief, indexOf, layerOf, magnitude, named, signed, whole } from "./format";
import type { Direction, Edge, Estimate, Neighbour, Neighbours, NotHeld, OneWay, Sign } from "./types";

const TITLES: Record<Direction, [string, string]> = {
  sources: ["Sources", "what feeds it"],
  targets: ["Targets", "what it feeds"],
};
const SIGNS = ["positive", "negative"] as const;
/** An interval that reaches further beyond the largest value is cut off there. */
const MOST_BEYOND = 1.4;

export interface ListOptions {
  sign: Sign;
  rows: number;
  /** Whether those that are not told apart from zero are hidden. */
  sure: boolean;
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

function tables(direction: Direction, way: OneWay, { sign, rows, sure, step }: ListOptions): (HTMLElement | null)[] {
  const shown = { positive: entriesOf(way.positive, sure, rows), negative: entriesOf(way.negative, sure, rows) };
  // One scale for both signs: bars can be compared.
  const largest = scaleOf(SIGNS.flatMap((one) => shown[one].entries));
  return SIGNS.filter((one) => sign === "both" || sign === one).flatMap((one) => {
    const { entries, nHidden } = shown[one];
    const missing = rows > way[one].length ? notKept(way.not_held[one]) : null;
    const remark = remarkOn(nHidden, entries);
    if (entries.length) return [neighbourTable(`${one} ${direction}`, entries, largest, step), remark, missing];
    return [remark, missing ?? h("p", { class: "none" }, `No ${one} ${direction}${nHidden ? " are told apart from zero" : ""}.`)];
  });
}

/** The first rows of a list, and how many before its end are hidden. */
export function entriesOf<One extends Estimate>(all: One[], sure: boolean, rows: number): { entries: One[]; nHidden: number } {
  const left = sure ? all.filter(isSure) : all;
  return { entries: left.slice(0, rows), nHidden: all.length - left.length };
}

/** What is hidden, and how sure the order of a list is; null where there is nothing to be said. */
export function remarkOn(nHidden: number, entries: Estimate[]): HTMLElement | null {
  const text = [hiddenText(nHidden), orderOf(entries)].filter(Boolean).join(" ");
  return text ? h("p", { class: "none order" }, text) : null;
}

/** What bars are relative to: the largest value, or the far end of an interval that is not much farther. */
function scaleOf(entries: (Estimate & { value: number })[]): number {
  const largest = Math.max(...entries.map(({ value }) => Math.abs(value)), 0);
  const ends = entries.flatMap(({ interval }) => interval ?? []).map(Math.abs);
  return Math.min(Math.max(largest, ...ends), largest * MOST_BEYOND);
}

function neighbourTable(caption: string, entries: Neighbour[], largest: number, step: (key: string) => void): HTMLElement {
  const rows = entries.map((entry) =>
    h(
      "tr",
      rowLook(entry),
      h("td", {}, keyButton(entry.component_key, entry.token, step)),
      h("td", { class: "layer" }, entry.layer),
      valueCell(entry, largest),
    ),
  );
  return table(caption, ["component or token", "layer", "value"], rows);
}

/** A table of edges, strongest first; with `inspect` a value is a button that tells more of its edge. */
export function edgeTable<One extends Edge>(caption: string, edges: One[], step: (key: string) => void, inspect?: (edge: One) => void): HTMLElement {
  const largest = scaleOf(edges);
  const rows = edges.map((edge) =>
    h(
      "tr",
      rowLook(edge),
      h("td", {}, keyButton(edge.source, edge.source_token, step, true)),
      h("td", {}, keyButton(edge.target, edge.target_token, step, true)),
      valueCell(edge, largest, inspect && (() => inspect(edge))),
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

function valueCell(one: Estimate & { value: number }, largest: number, inspect?: () => void): HTMLElement {
  const { value } = one;
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.width = `${largest ? Math.max((Math.abs(value) / largest) * 100, 1) : 0}%`;
  const sign = value < 0 ? "negative" : "positive";
  const known = saying(one);
  const number = inspect
    ? h("button", { type: "button", class: "number", title: "By both metrics, raw and normalised", onclick: inspect }, signed(value))
    : h("span", { class: "number" }, signed(value));
  const few = one.few_groups ? h("span", { class: "few" }, "few") : null;
  return h("td", { class: `value ${sign}`, title: known }, number, h("span", { class: "track" }, bar, whisker(one, largest)), few, known && h("span", { class: "unseen" }, known));
}

/** The interval of a value, over its bar; what lies beyond zero or the scale is cut off, and has no end there. */
function whisker({ value, interval }: Estimate & { value: number }, largest: number): HTMLElement | null {
  if (interval === null || !largest) return null;
  const [near, far] = value < 0 ? [-interval[1], -interval[0]] : interval;
  const place = (end: number): number => (Math.min(Math.max(end, 0), largest) / largest) * 100;
  const element = h("span", { class: ["whisker", near < 0 && "from-zero", far > largest && "cut"].filter(Boolean).join(" "), "aria-hidden": "true" });
  element.style.left = `${place(near)}%`;
  element.style.width = `${place(far) - place(near)}%`;
  return element;
}

/** Rows that speak for nothing are faint. */
function rowLook(one: Estimate): { class: string | null } {
  return { class: isUnsure(one) ? "unsure" : null };
}

function capital(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
