/** Switches, sliders and fields. */

import { h } from "./dom";

export interface Choice<Value> {
  value: Value;
  label: string;
  title?: string;
  disabled?: boolean;
}

/** A row of radio buttons that looks like one switch. */
export function choice<Value extends string>(
  name: string,
  label: string,
  choices: Choice<Value>[],
  current: Value,
  pick: (value: Value) => void,
): HTMLElement {
  const options = choices.map(({ value, label: text, title, disabled }) =>
    h(
      "label",
      { title },
      h("input", {
        type: "radio",
        name,
        value,
        checked: value === current,
        disabled,
        "data-focus": `${name}-${value}`,
        onchange: () => pick(value),
      }),
      h("span", {}, text),
    ),
  );
  return h("fieldset", { class: "choice" }, h("legend", {}, label), h("div", { class: "options" }, ...options));
}

/** A slider with its number beside it. */
export function slider(
  name: string,
  label: string,
  range: { low: number; high: number; value: number },
  pick: (value: number) => void,
): HTMLElement {
  const shown = h("output", { for: name }, String(range.value));
  const input = h("input", {
    id: name,
    type: "range",
    min: range.low,
    max: range.high,
    step: 1,
    value: range.value,
    "data-focus": name,
    oninput: () => (shown.textContent = input.value),
    onchange: () => pick(Number(input.value)),
  });
  return h("div", { class: "field" }, h("label", { for: name }, label), h("div", { class: "slider" }, input, shown));
}

/** A field for a magnitude, with a slider up to the largest one that is shown. */
export function magnitudeField(
  name: string,
  label: string,
  { value, largest }: { value: number; largest: number },
  pick: (value: number) => void,
): HTMLElement {
  const steps = 100;
  // Small magnitudes are the many: they get most of the slider.
  const toValue = (place: number): number => twoDigits(largest * (place / steps) ** 2);
  const toPlace = (one: number): number => (largest ? Math.round(steps * Math.sqrt(Math.min(one / largest, 1))) : 0);
  const field = h("input", {
    id: name,
    type: "number",
    min: 0,
    step: "any",
    value,
    "data-focus": name,
    onchange: () => {
      const asked = Math.max(Number(field.value) || 0, 0);
      field.value = String(asked); // what is no magnitude is not left standing there
      pick(asked);
    },
  });
  const range = h("input", {
    type: "range",
    min: 0,
    max: steps,
    step: 1,
    value: toPlace(value),
    "aria-label": `${label}, as a slider`,
    "data-focus": `${name}-slider`,
    oninput: () => (field.value = String(toValue(Number(range.value)))),
    onchange: () => pick(toValue(Number(range.value))),
  });
  return h("div", { class: "field" }, h("label", { for: name }, label), h("div", { class: "slider" }, range, field));
}

/** A magnitude's first two digits: never more than it is, so that what is as large as the largest stays. */
function twoDigits(value: number): number {
  if (value === 0) return 0;
  const unit = 10 ** (Math.floor(Math.log10(value)) - 1);
  return Number((Math.floor(value / unit) * unit).toPrecision(2));
}

/** A menu that opens on a button. */
export function menu(label: string, entries: { label: string; run: () => void }[]): HTMLElement {
  const element = h("details", { class: "menu" }, h("summary", {}, label));
  const close = (): void => element.removeAttribute("open");
  const buttons = entries.map(({ label: text, run }) =>
    h("button", { type: "button", onclick: () => (close(), run()) }, text),
  );
  element.append(h("div", { class: "entries" }, ...buttons));
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      close();
      element.querySelector("summary")?.focus();
    }
  });
  // Only then is known where the focus went: nowhere, while a menu closes over it.
  const closeIfLeft = (): void => void (element.contains(document.activeElement) || close());
  element.addEventListener("focusout", () => window.setTimeout(closeIfLeft, 150));
  return element;
}
