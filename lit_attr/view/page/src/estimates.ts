/** How sure values are: what is said of 95 % intervals, and which edges are told apart from zero. */

import { magnitude, signed, whole } from "./format";
import type { About, Estimate, Subgraph } from "./types";

export function hasZero({ interval }: Estimate): boolean {
  return interval !== null && interval[0] <= 0 && interval[1] >= 0;
}

/** Whether the interval leaves zero out; of a value without one nothing is known. */
export function isSure(one: Estimate): boolean {
  return one.interval !== null && !hasZero(one);
}

/** Whether something is known that speaks against a value: zero within its interval, or too few groups for one. */
export function isUnsure(one: Estimate): boolean {
  return hasZero(one) || one.few_groups === true;
}

/** What is known of a value, in words; nothing where the result has no standard errors. */
export function saying(one: Estimate): string | null {
  if (one.few_groups) return `its source occurs in too few groups of batches (${magnitude(one.n_groups ?? 0)}) for an interval`;
  if (one.interval === null || one.standard_error === null) return null;
  const [low, high] = one.interval;
  const zero = hasZero(one) ? "; zero lies within" : "";
  return `± ${magnitude(one.standard_error)}, 95 % interval ${signed(low)} to ${signed(high)}${zero}`;
}

/** What intervals mean here. */
export function basis({ standard_errors: kind }: About): string {
  if (kind === "not harvested") return "No intervals: standard errors were not harvested.";
  if (kind === "file order") return "Whiskers are 95 % intervals, of this text in the order of its file alone: rows were not drawn at random.";
  return "Whiskers are 95 % intervals: how far values would come out elsewhere on other text of the same kind.";
}

/** How far a list, strongest first, is in a sure order: by the intervals of what is shown. Null where nothing is known. */
export function orderOf(entries: Estimate[]): string | null {
  if (entries.length < 2 || entries.every(({ interval }) => interval === null)) return null;
  const ends = entries.map(({ interval }) => (interval ?? [-Infinity, Infinity]).map(Math.abs).sort((one, other) => one - other) as [number, number]);
  const overlaps = (place: number): boolean => hasZero(entries[place]!) || ends.slice(place + 1).some(([, far]) => far >= ends[place]![0]);
  const first = entries.findIndex((_, place) => place < entries.length - 1 && overlaps(place));
  if (first < 0) return "Intervals do not overlap: the order is sure.";
  return first === 0 ? "The order is not sure: intervals overlap." : `The order is sure down to number ${first}: from there on intervals overlap.`;
}

export function hiddenText(count: number): string | null {
  if (!count) return null;
  return `${whole(count)} hidden, not told apart from zero.`;
}

/** A drawing without edges that are not told apart from zero, and without what only these led to; steps stay. */
export function sureOnly(graph: Subgraph, kept: string[]): { graph: Subgraph; nHidden: number } {
  const edges = graph.edges.filter((edge) => edge.walked || isSure(edge));
  const reached = new Set(kept);
  for (let size = -1; size !== reached.size; ) {
    size = reached.size;
    for (const { source, target } of edges) if (reached.has(source) || reached.has(target)) reached.add(source).add(target);
  }
  const shown = edges.filter(({ source }) => reached.has(source));
  const nodes = graph.nodes.filter(({ component_key: key }) => reached.has(key));
  return { graph: { ...graph, nodes, edges: shown }, nHidden: graph.edges.length - shown.length };
}
