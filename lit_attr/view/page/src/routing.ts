/** The ways of edges between the nodes of lines that they cross. */

import type { Placed } from "./layout";

export type Point = [number, number];
/** From and to, with what stands there, or nothing. */
type Span = [number, number];

/** A stretch of an edge that runs straight upwards. */
interface Lane {
  x: number;
  top: number;
  bottom: number;
}

const CLEARANCE = 5;
/** Between two edges side by side: less where there is no room near by, and in the end none. */
const DISTANCES = [7, 3.5, 1.5, 0];
const NEAR = 80;

/** Leads edges around nodes, and beside each other. */
export class Router {
  private readonly lanes: Lane[] = [];

  /**
   * @param height Of a node.
   * @param bounds Between which edges may run.
   */
  constructor(
    private readonly height: number,
    private readonly bounds: Span,
  ) {}

  /**
   * The points that an edge runs through, from the top of its source to the bottom of its target.
   *
   * It crosses as many lines as it can straight upwards, each where no node stands and no other edge runs.
   *
   * @param crossed The lines between both ends, the lowest first.
   */
  route(from: Placed, to: Placed, crossed: Placed[][]): Point[] {
    const points: Point[] = [[from.x, from.y - this.height / 2]];
    let x = from.x;
    for (let first = 0; first < crossed.length; ) {
      const wanted = (x + to.x) / 2;
      const runs = DISTANCES.map((distance) => () => this.run(crossed.slice(first), distance, wanted));
      const lane = firstNear(runs, wanted);
      this.lanes.push(lane);
      x = lane.x;
      points.push([x, lane.bottom], [x, lane.top]);
      first += lane.length;
    }
    points.push([to.x, to.y + this.height / 2]);
    return points;
  }

  /** The way straight over as many of some lines as can be crossed so; null if not even the first can. */
  private run(lines: Placed[][], distance: number, wanted: number): (Lane & { length: number }) | null {
    let free: Span[] = [this.bounds];
    let length = 0;
    for (const line of lines) {
      const further = common(free, this.gaps(line, distance));
      if (!further.length) break;
      free = further;
      length += 1;
    }
    if (!length) return null;
    const [first, last] = [lines[0]![0]!, lines[length - 1]![0]!];
    return { x: nearest(free, wanted), bottom: first.y + this.height / 2, top: last.y - this.height / 2, length };
  }

  /** Where no node of a line is, and no edge that crosses it. */
  private gaps(line: Placed[], distance: number): Span[] {
    const nodes = line.map(({ x, width }): Span => [x - width / 2 - CLEARANCE, x + width / 2 + CLEARANCE]);
    const { y } = line[0]!;
    const edges = distance ? this.lanes.filter((lane) => lane.top < y && lane.bottom > y) : [];
    const found = without([...nodes, ...edges.map(({ x }): Span => [x - distance, x + distance])], this.bounds);
    const [, high] = this.bounds;
    return found.length || distance ? found : [[high, high]];
  }
}

/** Of several ways the first that is near to where it is wanted, else the first at all; the last one is always there. */
function firstNear<Way extends Lane>(ways: (() => Way | null)[], wanted: number): Way {
  let found: Way | null = null;
  for (const way of ways) {
    const one = way();
    found ??= one;
    if (one && Math.abs(one.x - wanted) <= NEAR) return one;
  }
  return found!;
}

/** What is left between bounds. */
function without(taken: Span[], [low, high]: Span): Span[] {
  const found: Span[] = [];
  let start = low;
  for (const [from, to] of [...taken].sort((a, b) => a[0] - b[0])) {
    if (from >= start) found.push([start, from]);
    start = Math.max(start, to);
  }
  return start <= high ? [...found, [start, high]] : found;
}

function common(some: Span[], others: Span[]): Span[] {
  const both = some.flatMap(([a, b]) => others.map(([c, d]): Span => [Math.max(a, c), Math.min(b, d)]));
  return both.filter(([start, end]) => start <= end);
}

function nearest(free: Span[], wanted: number): number {
  const places = free.map(([start, end]) => Math.min(Math.max(wanted, start), end));
  return places.reduce((best, x) => (Math.abs(x - wanted) < Math.abs(best - wanted) ? x : best));
}
