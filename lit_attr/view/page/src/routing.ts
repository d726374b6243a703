/** The ways of edges between the nodes of lines that they cross. */

import type { Placed } from "./layout";

export type Point = [number, number];
/** From and to, between which nothing stands. */
type Gap = [number, number];

const CLEARANCE = 5;

/**
 * The points that an edge runs through, from the top of its source to the bottom of its target.
 *
 * It crosses as many lines as it can straight upwards, each where no node stands.
 *
 * @param crossed The lines between both ends, the lowest first.
 * @param height Of a node.
 * @param bounds Between which edges may run.
 */
export function route(from: Placed, to: Placed, crossed: Placed[][], height: number, bounds: Gap): Point[] {
  const points: Point[] = [[from.x, from.y - height / 2]];
  let [first, x] = [0, from.x];
  while (first < crossed.length) {
    let free = gaps(crossed[first]!, bounds);
    let next = first + 1;
    for (; next < crossed.length; next++) {
      const further = common(free, gaps(crossed[next]!, bounds));
      if (!further.length) break;
      free = further;
    }
    x = nearest(free, (x + to.x) / 2);
    points.push([x, crossed[first]![0]!.y + height / 2], [x, crossed[next - 1]![0]!.y - height / 2]);
    first = next;
  }
  points.push([to.x, to.y + height / 2]);
  return points;
}

function gaps(line: Placed[], [low, high]: Gap): Gap[] {
  const sorted = [...line].sort((a, b) => a.x - b.x);
  const starts = [low, ...sorted.map(({ x, width }) => x + width / 2 + CLEARANCE)];
  const ends = [...sorted.map(({ x, width }) => x - width / 2 - CLEARANCE), high];
  const found = starts.map((start, index): Gap => [start, ends[index]!]).filter(([start, end]) => start <= end);
  return found.length ? found : [[high, high]];
}

function common(some: Gap[], others: Gap[]): Gap[] {
  const both = some.flatMap(([a, b]) => others.map(([c, d]): Gap => [Math.max(a, c), Math.min(b, d)]));
  return both.filter(([start, end]) => start <= end);
}

function nearest(free: Gap[], wanted: number): number {
  const places = free.map(([start, end]) => Math.min(Math.max(wanted, start), end));
  return places.reduce((best, x) => (Math.abs(x - wanted) < Math.abs(best - wanted) ? x : best));
}
