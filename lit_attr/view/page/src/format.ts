/** Numbers and keys as people read them. */

import type { GraphNode } from "./types";

/** Four significant digits with a sign, and a true minus. */
export function signed(value: number): string {
  return (value < 0 ? "\u2212" : "+") + magnitude(Math.abs(value));
}

export function magnitude(value: number): string {
  if (value === 0) return "0";
  if (value >= 1e5 || value < 1e-3) return value.toExponential(2).replace("e+", "e");
  return value.toPrecision(4);
}

/** Two or three characters for a cell. */
export function short(value: number): string {
  if (value === 0) return "0";
  if (value >= 1e5 || value < 1e-2) return value.toExponential(0).replace("e+", "e");
  if (value >= 1e3) return `${(value / 1e3).toPrecision(2)}k`.replace(/^(\d+)\.0k/, "$1k");
  return value >= 100 ? value.toFixed(0) : value.toPrecision(2);
}

export function whole(value: number): string {
  return value.toLocaleString("en");
}

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), units.length - 1);
  return `${Number((value / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

/** A token's text as keys are written: spaces and what is otherwise invisible can be seen. */
export function quoted(token: string): string {
  const escape = (one: string): string => [...Array(one.length).keys()].map((at) => `\\u${one.charCodeAt(at).toString(16).padStart(4, "0")}`).join("");
  return JSON.stringify(token).replace(/[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/gu, (one) => (one === " " ? one : escape(one)));
}

/** A token's text for a line of its own; what is cut off is in a title, or said elsewhere. */
export function brief(token: string, most = 40): string {
  const characters = [...quoted(token)];
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}\u2026` : characters.join("");
}

export function layerOf(key: string): string {
  return key.slice(0, key.lastIndexOf(":"));
}

export function indexOf(key: string): string {
  return key.slice(key.lastIndexOf(":") + 1);
}

/** What a component or token is called in running text. */
export function named(key: string, token: string | null): string {
  return token === null ? key : `${key} ${quoted(token)}`;
}

/** What stands on a node of the drawing, where the layer is written beside it. */
export function chipText(node: GraphNode): string {
  return node.token === null ? String(node.component_idx) : brief(node.token, 16);
}
