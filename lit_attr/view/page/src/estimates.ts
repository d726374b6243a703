/** How sure values are, in words. */

import { signed, whole } from "./format";
import type { About, ErrorBasis, Estimated } from "./types";

const MEANINGS: Record<ErrorBasis, string | null> = {
  "random order": "\u00b1 standard error, and 95 % intervals as whiskers: how far values would come out elsewhere on other text of the same kind.",
  "file order": "\u00b1 standard error, and 95 % intervals as whiskers, of this text in the order of its file alone: rows were not drawn at random.",
  "not harvested": null,
};

/** Whether anything is known of how sure a value is. */
export function isEstimated({ n_groups }: Estimated): boolean {
  return n_groups !== null;
}

/** Whether a value is known, and not known to be other than zero: zero is in its interval, or it has none. */
export function isUnsure(one: Estimated): boolean {
  return isEstimated(one) && !(one.interval && (one.interval[0] > 0 || one.interval[1] < 0));
}

/** What intervals mean in a result; null where there are none. */
export function meaningOf(about: About): string | null {
  return MEANINGS[about.standard_errors];
}

/** Two significant digits, as they stand behind a value; none where there is no standard error. */
export function errorText({ standard_error: error }: Estimated): string {
  if (error === null) return "";
  if (error !== 0 && (error >= 1e5 || error < 1e-3)) return `\u00b1 ${error.toExponential(1).replace("e+", "e")}`;
  return `\u00b1 ${error >= 100 ? error.toFixed(0) : error === 0 ? "0" : error.toPrecision(2)}`;
}

export function valueText(value: number, one: Estimated): string {
  return [signed(value), errorText(one)].filter(Boolean).join(" ");
}

/** An interval in words. */
export function rangeText([low, high]: [number, number]): string {
  return `${signed(low)} to ${signed(high)}`;
}

/** In how many groups of batches the source of an edge occurred. */
export function groupsText(n_groups: number): string {
  return `${whole(Number(n_groups.toPrecision(3)))} groups of batches`;
}

/** Why a value has no interval. */
export function fewText(few: number): string {
  return `the source occurred in fewer than ${few} groups of batches, too few for an interval`;
}

/** The interval of a value in words, or why it has none; null where nothing is known. */
export function intervalText(one: Estimated, few: number): string | null {
  if (one.few_groups) return `No interval: ${fewText(few)}`;
  if (!one.interval) return null;
  return `95 % interval ${rangeText(one.interval)}${isUnsure(one) ? "; zero is in it" : ""}`;
}
