/** Where nodes and edges of the drawing are: layer above layer, the embedding at the bottom. */

import { Router, type Point } from "./routing";
import type { DrawnEdge, GraphNode } from "./types";

export interface Placed {
  node: GraphNode;
  x: number;
  y: number;
  width: number;
}

export interface Row {
  layer: string;
  top: number;
  height: number;
}

export interface Link {
  edge: DrawnEdge;
  from: Placed;
  to: Placed;
  points: Point[];
}

export interface Layout {
  width: number;
  height: number;
  gutter: number;
  rows: Row[];
  nodes: Placed[];
  links: Link[];
}

export const NODE_HEIGHT = 26;
const LINE = 48;
/** Between rows: as much as brings a drawing of few rows to a good height. */
const [LEAST_GAP, MOST_GAP, GOOD_HEIGHT] = [34, 84, 560];
const NODE_GAP = 20;
const MARGIN = 10;
const LABEL_ABOVE = 24;
const GUTTER = 92;
/** Narrower drawings have the names of layers above their nodes, not beside them. */
const NARROW = 560;
const SWEEPS = 8;

/**
 * Place a graph.
 *
 * @param order All layers from the embedding to the output.
 * @param width In pixels.
 * @param measure The width of a node.
 */
export function place(
  nodes: GraphNode[],
  edges: DrawnEdge[],
  order: string[],
  width: number,
  measure: (node: GraphNode) => number,
): Layout {
  const isNarrow = width < NARROW;
  const gutter = isNarrow ? 0 : GUTTER;
  const left = gutter + MARGIN;
  const room = Math.max(width - left - MARGIN, 1);

  const placed = new Map<string, Placed>();
  for (const node of nodes) {
    placed.set(node.component_key, { node, x: 0, y: 0, width: Math.min(measure(node), room) });
  }
  const links = edges.flatMap((edge): Link[] => {
    const [from, to] = [placed.get(edge.source), placed.get(edge.target)];
    return from && to ? [{ edge, from, to, points: [] }] : [];
  });

  const layers = [...order].reverse().filter((layer) => nodes.some((node) => node.layer === layer));
  const rows = layers.map((layer) => [...placed.values()].filter((one) => one.node.layer === layer));
  for (const row of rows) row.forEach((one, index) => (one.x = left + ((index + 0.5) / row.length) * room));

  const around = neighbours(links);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const downwards = sweep % 2 === 0;
    for (const row of downwards ? rows : [...rows].reverse()) {
      const wanted = new Map(row.map((one) => [one, mean(around.get(one), one.x)]));
      row.sort((a, b) => wanted.get(a)! - wanted.get(b)!);
      for (const line of split(row, room)) spread(line, wanted, left, left + room);
    }
  }
  const lines = rows.map((row) => split(row, room));

  const filled = lines.reduce((sum, one) => sum + one.length * LINE + (isNarrow ? LABEL_ABOVE : 0), 0);
  const gap = Math.min(Math.max((GOOD_HEIGHT - filled) / Math.max(rows.length - 1, 1), LEAST_GAP), MOST_GAP);
  let y = MARGIN;
  const found = layers.map((layer, index) => {
    const top = y;
    if (isNarrow) y += LABEL_ABOVE;
    for (const line of lines[index]!) {
      for (const one of line) one.y = y + LINE / 2;
      y += LINE;
    }
    y += gap;
    return { layer, top, height: y - gap - top };
  });
  const all = lines.flat().reverse();
  const edge = MARGIN - 2;
  const router = new Router(NODE_HEIGHT, [left - edge, left + room + edge]);
  // The strongest first: they run straightest.
  for (const link of [...links].sort((a, b) => Math.abs(b.edge.value) - Math.abs(a.edge.value))) {
    const crossed = all.filter(([one]) => one!.y < link.from.y && one!.y > link.to.y);
    link.points = router.route(link.from, link.to, crossed);
  }
  return { width, height: Math.max(y - gap + MARGIN, LINE), gutter, rows: found, nodes: [...placed.values()], links };
}

function neighbours(links: Link[]): Map<Placed, Placed[]> {
  const found = new Map<Placed, Placed[]>();
  for (const { from, to } of links) {
    found.set(from, [...(found.get(from) ?? []), to]);
    found.set(to, [...(found.get(to) ?? []), from]);
  }
  return found;
}

function mean(others: Placed[] | undefined, otherwise: number): number {
  return others?.length ? others.reduce((sum, one) => sum + one.x, 0) / others.length : otherwise;
}

/** The lines of a row: neighbouring nodes are in different ones, so that each stays near its place. */
function split(row: Placed[], room: number): Placed[][] {
  for (let count = 1; ; count++) {
    const lines = Array.from({ length: count }, (_, line) => row.filter((_, index) => index % count === line));
    if (count >= row.length || lines.every((line) => widthOf(line) <= room)) return lines;
  }
}

function widthOf(line: Placed[]): number {
  return line.reduce((sum, one) => sum + one.width + NODE_GAP, -NODE_GAP);
}

/** Put the nodes of a line where they are wanted, as far as they do not overlap. */
function spread(line: Placed[], wanted: Map<Placed, number>, low: number, high: number): void {
  const distance = (a: Placed, b: Placed): number => (a.width + b.width) / 2 + NODE_GAP;
  const pushedRight: number[] = [];
  line.forEach((one, index) => {
    const before = index ? pushedRight[index - 1]! + distance(line[index - 1]!, one) : low + one.width / 2;
    pushedRight.push(Math.max(wanted.get(one)!, before));
  });
  const pushedLeft: number[] = [];
  for (let index = line.length - 1; index >= 0; index--) {
    const one = line[index]!;
    const last = index === line.length - 1;
    const after = last ? high - one.width / 2 : pushedLeft[index + 1]! - distance(one, line[index + 1]!);
    pushedLeft[index] = Math.min(wanted.get(one)!, after);
  }
  // Between both no two overlap, and nothing is pushed further than it must be; then back between the margins.
  line.forEach((one, index) => (one.x = (pushedRight[index]! + pushedLeft[index]!) / 2));
  line.forEach((one, index) => {
    const before = index ? line[index - 1]!.x + distance(line[index - 1]!, one) : low + one.width / 2;
    one.x = Math.max(one.x, before);
  });
  for (let index = line.length - 1; index >= 0; index--) {
    const one = line[index]!;
    const last = index === line.length - 1;
    one.x = Math.min(one.x, last ? high - one.width / 2 : line[index + 1]!.x - distance(one, line[index + 1]!));
  }
}
