/** One edge in words: by both metrics, normalised and raw, with how sure each number is. */

import { h } from "./dom";
import { fewText, groupsText, isUnsure, rangeText, valueText } from "./estimates";
import { signed } from "./format";
import type { EdgeByMetric, EdgeValues, Estimated } from "./types";

/** What is said of an edge, from its answers by metric; `few` is the smallest number of groups with an interval. */
export function edgeDetail(ends: string, { by_metric }: EdgeByMetric, few: number, sample: string | null): (HTMLElement | string | null)[] {
  const known = Object.entries(by_metric);
  const from = by_metric.attr_abs ? sample : null;
  if (known.every(([, { n_groups }]) => n_groups === null)) {
    return [`${ends}: ${known.map(([metric, one]) => `${metric} ${plainText(one)}`).join(", ")}${from ? `; ${from}` : ""}`];
  }
  const lines = known.map(([metric, one]) => h("span", { class: "line" }, h("b", {}, metric), ` ${fullText(one, few)}`));
  return [`${ends}, with 95 % intervals in brackets:`, ...lines, from && h("span", { class: "line" }, from)];
}

function plainText({ raw, normalized, is_held }: EdgeValues): string {
  if (raw === null || normalized === null) return `not ${is_held ? "harvested" : "held"}`;
  return `${signed(normalized)} (raw ${signed(raw)})`;
}

function fullText(one: EdgeValues, few: number): string {
  const { raw, normalized, n_groups, few_groups } = one;
  if (raw === null || normalized === null || n_groups === null) return plainText(one);
  if (few_groups) return `${plainText(one)}; no interval: ${fewText(few)} (${groupsText(n_groups)})`;
  const ofNormalized = { standard_error: one.normalized_standard_error, interval: one.normalized_interval, n_groups, few_groups };
  const ofRaw = { standard_error: one.raw_standard_error, interval: one.raw_interval, n_groups, few_groups };
  const parts = [numberText(normalized, ofNormalized), `raw ${numberText(raw, ofRaw)}`, groupsText(n_groups), isUnsure(ofNormalized) && "not told apart from zero"];
  return parts.filter(Boolean).join("; ");
}

function numberText(value: number, one: Estimated): string {
  return valueText(value, one) + (one.interval ? ` [${rangeText(one.interval)}]` : "");
}
