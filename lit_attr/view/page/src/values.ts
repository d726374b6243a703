/** Cells of values: the number, how sure it is, and a bar with its interval. */

import { h } from "./dom";
import { errorText, fewText, intervalText, isEstimated, isUnsure } from "./estimates";
import { signed } from "./format";
import type { Estimated } from "./types";

type Valued = Estimated & { value: number };

/** Intervals may make bars shorter by so much; what reaches further is cut off. */
const MOST_BEYOND = 1.6;

/** What all bars of some values are drawn to: the largest magnitude, and room for intervals beyond it. */
export function scaleOf(values: Valued[]): number {
  const largest = Math.max(...values.map(({ value }) => Math.abs(value)), 0);
  const ends = values.flatMap(({ interval }) => interval ?? []).map(Math.abs);
  return Math.max(largest, Math.min(Math.max(...ends, 0), largest * MOST_BEYOND));
}

/** The cell of a value; with `inspect` the number is a button that tells more. */
export function valueCell(one: Valued, scale: number, few: number, inspect?: () => void): HTMLElement {
  const number = inspect
    ? h("button", { type: "button", class: "number", title: "By both metrics, raw and normalised", onclick: inspect }, signed(one.value))
    : h("span", { class: "number" }, signed(one.value));
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.width = `${scale ? Math.max((Math.abs(one.value) / scale) * 100, 1) : 0}%`;
  const said = intervalText(one, few);
  return h(
    "td",
    { class: ["value", one.value < 0 ? "negative" : "positive", isUnsure(one) && "unsure"].filter(Boolean).join(" "), title: one.few_groups ? null : said },
    number,
    isEstimated(one) && (one.few_groups ? fewMark(few) : h("span", { class: "error" }, ` ${errorText(one)}`)),
    h("span", { class: "track" }, bar, whisker(one, scale)),
    said && !one.few_groups && h("span", { class: "said" }, `; ${said}`),
  );
}

/** The mark of a value without an interval, which says why where it is pointed at, or focused. */
function fewMark(few: number): HTMLElement {
  const why = fewText(few);
  return h("span", { class: "few", tabindex: 0, role: "note", "aria-label": `few: ${why}`, "data-tip": `No interval: ${why}.` }, "few");
}

/** The interval over the bar, in magnitudes; an end that is beyond the scale has no cap. */
function whisker({ value, interval }: Valued, scale: number): HTMLElement | null {
  if (!interval || !scale) return null;
  const [near, far] = value < 0 ? [-interval[1], -interval[0]] : interval;
  const [from, to] = [Math.max(near, 0), Math.min(far, scale)].map((end) => (end / scale) * 100) as [number, number];
  const line = h("span", { class: ["whisker", near < 0 && "cut-near", far > scale && "cut-far"].filter(Boolean).join(" "), "aria-hidden": "true" });
  line.style.left = `${from}%`;
  line.style.width = `${Math.max(to - from, 0)}%`;
  return line;
}
