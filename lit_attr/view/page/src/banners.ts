/** What must be known whatever is shown, above everything else. */

import { fill, h } from "./dom";

interface Banner {
  text: string;
  isError?: boolean;
  action?: { label: string; run: () => void };
}

export class Banners {
  private shown = new Map<string, Banner>();

  constructor(private readonly element: Element) {}

  set(name: string, banner: Banner | null): void {
    if (this.shown.get(name)?.text === banner?.text) return;
    if (banner) this.shown.set(name, banner);
    else this.shown.delete(name);
    fill(this.element, ...[...this.shown.entries()].map(([key, one]) => this.draw(key, one)));
  }

  private draw(name: string, { text, isError, action }: Banner): HTMLElement {
    const button = action && h("button", { type: "button", onclick: () => action.run() }, action.label);
    return h("div", { class: isError ? "banner error" : "banner", id: `banner-${name}` }, h("span", {}, text), button);
  }
}
