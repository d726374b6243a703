/** What the server answers; see lit_attr/view/questions.py and the dataclasses of lit_attr/query. */

export type Metric = "attr" | "attr_abs";
export type Sign = "positive" | "negative" | "both";
export type Direction = "sources" | "targets";

export interface GraphNode {
  component_key: string;
  layer: string;
  component_idx: number;
  token: string | null;
  /** False for a component that was no target of the harvest: what feeds it was not measured. */
  was_harvested: boolean;
}

/** How sure a value is; all of it is null where the result has no standard errors, or the edge was not measured. */
export interface Estimated {
  standard_error: number | null;
  /** The effective number of groups of batches in which the source occurred. */
  n_groups: number | null;
  few_groups: boolean | null;
  /** The 95 % interval. */
  interval: [number, number] | null;
}

/** What standard errors say: of other text of the same kind, or of the text as it lies in its file. */
export type ErrorBasis = "random order" | "file order" | "not harvested";

export interface Neighbour extends GraphNode, Estimated {
  value: number;
}

export interface Edge extends Estimated {
  source: string;
  source_token: string | null;
  target: string;
  target_token: string | null;
  value: number;
}

export interface DrawnEdge extends Edge {
  walked: boolean;
}

export interface About {
  file: string;
  size: number;
  n_tokens: number;
  ci_threshold: number;
  layers: { layer: string; size: number; n_not_harvested: number | null }[];
  partial: string | null;
  /** How far sums that were rounded are from those in float32. */
  rounding: string | null;
  /** Why attr_abs was not harvested, or cannot be shown; null where it can. */
  why_no_abs: string | null;
  /** From which share of the sequences attr_abs is; null where it is from all of them. */
  abs_sample: string | null;
  standard_errors: ErrorBasis;
  /** Why there are no standard errors; null where there are. */
  why_no_errors: string | null;
  /** Sources that occurred in fewer groups of batches have no intervals. */
  few: number;
  /** Sure edges are sought among so many of the strongest. */
  most_looked_at: number;
  provenance: Record<string, unknown> | null;
  indexed: boolean;
  /** How many of the strongest edges each list has, where the result holds nothing else; null if it holds all. */
  n_kept: number | null;
  tokenizer: string | null;
}

export interface Neighbours {
  node: GraphNode;
  was_harvested?: boolean;
  sources: OneWay;
  targets: OneWay;
}

/** What a result that keeps the strongest edges alone has dropped. */
export interface NotHeld {
  n: number;
  mass: number;
}

type BySign<Value> = Partial<Record<"positive" | "negative", Value | null>>;

/** What is said of the lists of both signs. */
export interface SaidOfLists {
  not_held: BySign<NotHeld>;
  /** How many first rows have intervals beyond those of all later ones; null without standard errors. */
  n_separated: BySign<number>;
  /** How many stronger edges are left out, where only sure ones are asked for; null where all are. */
  n_unsure: BySign<number>;
}

export interface OneWay extends SaidOfLists {
  positive: Neighbour[];
  negative: Neighbour[];
  /** Why there are none by nature, such as of the embedding's sources. */
  none: string | null;
  /** Components that cannot be among the targets, since they were none of the harvest's. */
  n_not_harvested: number;
}

export interface Subgraph {
  keys: GraphNode[];
  nodes: GraphNode[];
  edges: DrawnEdge[];
  /** As they were asked for, but canonical; with those that the result has not. */
  walk: string[];
  pins: string[];
  unknown: { key: string; why: string }[];
  /** Edges between steps and pins that were not measured. */
  not_harvested: { source: string; target: string; walked: boolean }[];
  /** Edges between steps and pins that the result does not hold. */
  unheld: { source: string; target: string; walked: boolean }[];
  not_held: NotHeld | null;
  n_left_out: number;
  /** How many stronger edges are left out, where only sure ones are asked for; null where all are. */
  n_unsure: number | null;
}

/** `values` are null where there are no edges, and where none was measured; `harvested`, the share that was, tells these apart. */
export interface Masses {
  slow: false;
  sources: string[];
  targets: string[];
  values: (number | null)[][];
  harvested: (number | null)[][];
}

export type Overview = { slow: true } | Masses;

export type Pair = { slow: true } | ({ slow: false; source: string; target: string; positive: Edge[]; negative: Edge[]; n_not_harvested: number } & SaidOfLists);

export interface EdgeValues {
  raw: number | null;
  normalized: number | null;
  is_held: boolean;
  raw_standard_error: number | null;
  normalized_standard_error: number | null;
  raw_interval: [number, number] | null;
  normalized_interval: [number, number] | null;
  n_groups: number | null;
  few_groups: boolean | null;
}

export interface EdgeByMetric {
  by_metric: Partial<Record<Metric, EdgeValues>>;
}

export interface Hit {
  key: string;
  token: string | null;
  kind: "component" | "token" | "near" | "layer";
  size: number | null;
}

export interface Hits {
  hits: Hit[];
  why: string | null;
}

/** Which result answered, and what became of its file since it was opened. */
export interface ResultState {
  id: string;
  state: "same" | "replaced" | "removed" | "changed";
}
