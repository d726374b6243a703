/** Walking the drawing with the arrow keys. */

import type { Placed } from "./layout";

/** The key of the node that an arrow leads to from another: beside it, or the nearest in the line above or below. */
export function arrowTarget(arrow: string, key: string, nodes: Placed[]): string | null {
  const here = nodes.find(({ node }) => node.component_key === key);
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[arrow];
  if (!here || !step) return null;
  const [dx, dy] = step as [number, number];
  const there = nodes.filter(({ x, y }) => (dx ? y === here.y && (x - here.x) * dx > 0 : (y - here.y) * dy > 0));
  const distance = ({ x, y }: Placed): number => (dx ? Math.abs(x - here.x) : Math.abs(y - here.y) * 1e4 + Math.abs(x - here.x));
  const nearest = there.sort((a, b) => distance(a) - distance(b))[0];
  return nearest?.node.component_key ?? null;
}
