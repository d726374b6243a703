/** Making elements. */

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;

/** An element; attributes that begin with `on` are listeners, those that are null or false are left out. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child): child is Node | string => child !== null && child !== undefined && child !== false));
  return element;
}

/** Replace what is in an element; the focus stays on what has the same `data-focus`. */
export function fill(element: Element, ...children: Child[]): void {
  const focused = element.contains(document.activeElement) ? document.activeElement?.getAttribute("data-focus") : null;
  element.replaceChildren(...children.filter((child): child is Node | string => !!child));
  if (focused) element.querySelector<HTMLElement>(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

/** A notice in place of an answer. */
export function notice(text: string, isError = false, ...more: Child[]): HTMLElement {
  return h("div", { class: isError ? "notice error" : "notice", role: isError ? "alert" : null }, h("p", {}, text), ...more);
}
