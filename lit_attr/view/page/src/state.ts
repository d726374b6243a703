/** What is shown: all of it is in the address, so that a link reproduces it and the browser's back is an undo. */

import type { Metric, Sign } from "./types";

export type View = "walk" | "overview" | "about";

export interface State {
  /** Id of the result that the link was made with. */
  of: string;
  view: View;
  /** The component or token that is looked at. */
  key: string;
  /** Those that were looked at before, oldest first. */
  walk: string[];
  pins: string[];
  metric: Metric;
  sign: Sign;
  raw: boolean;
  components: boolean;
  /** Whether edges are left out that are not told apart from zero. */
  sure: boolean;
  k: number;
  depth: number;
  threshold: number;
  rows: number;
  /** Source and target layer whose edges are listed. */
  pair: string[];
}

export const DEFAULTS: State = {
  of: "",
  view: "overview",
  key: "",
  walk: [],
  pins: [],
  metric: "attr",
  sign: "both",
  raw: false,
  components: false,
  sure: false,
  k: 3,
  depth: 2,
  threshold: 0,
  rows: 10,
  pair: [],
};

export const ROWS = [5, 10, 20, 40, 64];
export const MOST_BRANCHES = 10;
export const DEEPEST = 2;
/** As many as the server takes, less some for pins. */
const LONGEST_WALK = 12;
const MOST_PINS = 10;

const VIEWS: View[] = ["walk", "overview", "about"];
const METRICS: Metric[] = ["attr", "attr_abs"];
const SIGNS: Sign[] = ["both", "positive", "negative"];

/** Read a state from the part of an address behind `#`; what is not understood is as usual. */
export function parse(hash: string): State {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const oneOf = <T extends string>(name: string, choices: T[], usual: T): T =>
    choices.find((choice) => choice === found.get(name)) ?? usual;
  const number = (name: string, low: number, high: number, usual: number): number => {
    const value = Number(found.get(name) ?? NaN);
    return Number.isFinite(value) && value >= low && value <= high ? value : usual;
  };
  const key = found.get("key") ?? "";
  return {
    of: found.get("of") ?? "",
    view: oneOf("view", VIEWS, key ? "walk" : "overview"),
    key,
    walk: unique(found.getAll("walk")).slice(-LONGEST_WALK),
    pins: unique(found.getAll("pin")).slice(-MOST_PINS),
    metric: oneOf("metric", METRICS, DEFAULTS.metric),
    sign: oneOf("sign", SIGNS, DEFAULTS.sign),
    raw: found.get("raw") === "1",
    components: found.get("components") === "1",
    sure: found.get("sure") === "1",
    k: Math.round(number("k", 1, MOST_BRANCHES, DEFAULTS.k)),
    depth: Math.round(number("depth", 1, DEEPEST, DEFAULTS.depth)),
    threshold: number("threshold", 0, Number.MAX_VALUE, DEFAULTS.threshold),
    rows: ROWS.find((rows) => rows === Number(found.get("rows"))) ?? DEFAULTS.rows,
    pair: found.getAll("pair").length === 2 ? found.getAll("pair") : [],
  };
}

/** The part of an address behind `#` for a state; what is as usual is left out. */
export function format(state: State): string {
  const found = new URLSearchParams();
  for (const key of state.walk) found.append("walk", key);
  if (state.key) found.append("key", state.key);
  for (const key of state.pins) found.append("pin", key);
  for (const layer of state.pair) found.append("pair", layer);
  if (state.view !== (state.key ? "walk" : "overview")) found.append("view", state.view);
  for (const name of ["metric", "sign", "k", "depth", "threshold", "rows"] as const) {
    if (state[name] !== DEFAULTS[name]) found.append(name, String(state[name]));
  }
  for (const name of ["raw", "components", "sure"] as const) if (state[name]) found.append(name, "1");
  if (state.of) found.append("of", state.of);
  return `#${String(found).replaceAll("%3A", ":").replaceAll("%2C", ",")}`;
}

/** The state after stepping to another component or token. */
export function stepTo(state: State, key: string): State {
  if (key === state.key) return { ...state, view: "walk" };
  const walk = [...state.walk, state.key].filter((one) => one && one !== key).slice(-LONGEST_WALK);
  return { ...state, view: "walk", key, walk };
}

/** The state with a component or token pinned, or no longer. */
export function togglePin(state: State, key: string): State {
  const pins = state.pins.includes(key) ? state.pins.filter((one) => one !== key) : [...state.pins, key];
  return { ...state, pins: pins.slice(-MOST_PINS) };
}

function unique(keys: string[]): string[] {
  return [...new Set(keys.filter(Boolean))];
}
