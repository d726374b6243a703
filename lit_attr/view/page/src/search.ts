/** The search field: a combobox with what the server finds. */

import { Refusal, type Server } from "./api";
import { fill, h } from "./dom";
import { brief, quoted, whole } from "./format";
import type { Hit, Hits } from "./types";

const PAUSE = 120;
const KINDS = { component: "component", token: "token", near: "similar token", layer: "layer" };

export class SearchField {
  readonly element: HTMLElement;
  private readonly input: HTMLInputElement;
  private readonly list: HTMLUListElement;
  private readonly message: HTMLElement;
  private hits: Hit[] = [];
  /** The text that they were found for. */
  private found = "";
  private at = -1;
  private timer = 0;

  constructor(
    private readonly server: Server,
    private readonly choose: (key: string) => void,
  ) {
    this.list = h("ul", { id: "hits", role: "listbox", "aria-label": "What was found", hidden: true });
    this.message = h("p", { class: "why", role: "status" });
    this.input = h("input", {
      id: "search",
      type: "search",
      role: "combobox",
      placeholder: "token, layer, or key such as 1.mlp.up:5",
      "aria-label": "Search for a component or token",
      "aria-expanded": "false",
      "aria-controls": "hits",
      "aria-autocomplete": "list",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.later(),
      onkeydown: (event: KeyboardEvent) => this.onKey(event),
      onblur: () => window.setTimeout(() => this.close(), 150),
    });
    this.element = h("div", { class: "search", role: "search" }, this.input, this.list, this.message);
  }

  focus(): void {
    this.input.focus();
    this.input.select();
  }

  private later(): void {
    this.element.setAttribute("aria-busy", "true");
    this.mark(-1); // what is still listed was found for another text
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.look(), PAUSE);
  }

  private async look(): Promise<void> {
    const text = this.input.value;
    if (!text.trim()) return this.show(text, { hits: [], why: null });
    try {
      this.show(text, await this.server.ask<Hits>("search", { text }));
    } catch (error) {
      if (error instanceof Refusal) this.show(text, { hits: [], why: error.message });
      else throw error;
    }
  }

  private show(text: string, { hits, why }: Hits): void {
    this.found = text;
    this.element.removeAttribute("aria-busy");
    this.hits = hits;
    fill(this.list, ...hits.map((hit, index) => this.option(hit, index)));
    this.mark(-1);
    fill(this.message, why);
    this.list.hidden = !hits.length;
    this.input.setAttribute("aria-expanded", String(hits.length > 0));
  }

  private option(hit: Hit, index: number): HTMLElement {
    const size = hit.size === null ? null : ` of ${whole(hit.size)}`;
    const option = h(
      "li",
      { id: `hit-${index}`, role: "option", "aria-selected": "false", onmousedown: (event: Event) => event.preventDefault() },
      h("span", { class: "key" }, hit.key),
      hit.token === null ? null : h("span", { class: "token", title: quoted(hit.token) }, brief(hit.token)),
      h("span", { class: "kind" }, KINDS[hit.kind], size),
    );
    option.addEventListener("click", () => this.take(hit));
    return option;
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!this.hits.length) return;
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.mark((this.at + step + this.hits.length + (this.at < 0 && step < 0 ? 1 : 0)) % this.hits.length);
      event.preventDefault();
    } else if (event.key === "Enter") {
      void this.enter();
      event.preventDefault();
    } else if (event.key === "Escape") this.close();
  }

  /** Take the marked hit; without one the first, or the text as it is, so that the server says what is wrong with it. */
  private async enter(): Promise<void> {
    window.clearTimeout(this.timer);
    const text = this.input.value.trim();
    if (this.at >= 0 && this.found === this.input.value) return this.take(this.hits[this.at]!);
    if (!text) return;
    this.element.setAttribute("aria-busy", "true");
    await this.look();
    const first = this.hits[0];
    if (first && first.kind !== "near") this.take(first);
    else if (!first && text.includes(":")) this.take({ key: text, token: null, kind: "component", size: null });
  }

  private take(hit: Hit): void {
    if (hit.kind === "layer") {
      this.input.value = hit.key;
      this.input.focus();
      void this.look();
      return;
    }
    this.input.value = "";
    this.show("", { hits: [], why: null });
    this.input.blur();
    this.choose(hit.key);
  }

  private mark(index: number): void {
    this.at = index;
    [...this.list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === index)));
    this.list.children[index]?.scrollIntoView({ block: "nearest" });
    if (index < 0) this.input.removeAttribute("aria-activedescendant");
    else this.input.setAttribute("aria-activedescendant", `hit-${index}`);
  }

  private close(): void {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }
}
