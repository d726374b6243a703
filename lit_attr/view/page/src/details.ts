/** One edge in words: by both metrics, normalised and raw, with how sure each number is. */

import { fewText, groupsText, rangeText, valueText } from "./estimates";
import { signed } from "./format";
import type { EdgeByMetric, Estimated, EdgeValues } from "./types";
import { h } from "./dom";

/** What is said of an edge, from its answers by metric; `few` is the smallest number of groups with an interval. */
export function edgeDetail(ends: string, { by_metric }: EdgeByMetric, few: number, sample: string | null): (HTMLElement | string)[] {
  const known = Object.entries(by_metric);
  const from = sample && by_metric.attr_abs ? sample : null;
  if (known.every(([, { n_groups }]) => n_groups === null)) {
    return [`${ends}: ${known.map(([metric, one]) => `${metric} ${plainText(one)}`).join(", ")}${from ? `; ${from}` : ""}`];
  }
  return [`${ends}, with 95 % intervals in brackets:`, ...known.map(([metric, one]) => h("span", { class: "line" }, h("b", {}, metric), ` ${fullText(one, few)}`)), from && h("span", { class: "line" }, from)].filter(
    (one): one is HTMLElement | string => !!one,
  );
}

function plainText({ raw, normalized, is_held }: EdgeValues): string {
  if (raw === null || normalized === null) return `not ${is_held ? "harvested" : "held"}`;
  return `${signed(normalized)} (raw ${signed(raw)})`;
}

function fullText(one: EdgeValues, few: number): string {
  const { raw, normalized, n_groups } = one;
  if (raw === null || normalized === null || n_groups === null) return plainText(one);
  if (one.few_groups) return `${plainText(one)}; no interval: ${fewText(few)} (${groupsText(n_groups)})`;
  const number = (value: number, error: number | null, interval: Estimated["interval"]): string =>
    valueText(value, { ...one, standard_error: error, interval }) + (interval ? ` [${rangeText(interval)}]` : "");
  const zero = one.normalized_interval && one.normalized_interval[0] <= 0 && one.normalized_interval[1] >= 0;
  return [
    number(normalized, one.normalized_standard_error, one.normalized_interval),
    `raw ${number(raw, one.raw_standard_error, one.raw_interval)}`,
    groupsText(n_groups),
    zero && "not told apart from zero",
  ]
    .filter(Boolean)
    .join("; ");
}
