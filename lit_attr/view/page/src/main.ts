/** Starts the page: the frame around its three views. */

import { aboutPanel, coverageOf, nameOf } from "./about";
import { Refusal, Server } from "./api";
import { Banners } from "./banners";
import { choice } from "./controls";
import { fill, h, notice } from "./dom";
import { whole } from "./format";
import { OverviewPanel } from "./overview";
import { SearchField } from "./search";
import type { State, View } from "./state";
import { Store } from "./store";
import type { About, ResultState } from "./types";
import { WalkPanel } from "./walk";

const VIEWS: { view: View; label: string }[] = [
  { view: "overview", label: "Overview" },
  { view: "walk", label: "Walk" },
  { view: "about", label: "Result" },
];
const CHANGES = {
  replaced: "The result was replaced by another file since it was opened; what is shown is the old one.",
  removed: "The file of the result was removed since it was opened; what is shown is what was opened.",
  changed: "The result was changed in place since it was opened, and can no longer be read as it was.",
};

class Page {
  private readonly server = new Server();
  private readonly store = new Store();
  private readonly banners = new Banners(document.getElementById("banners")!);
  private readonly header = document.getElementById("header")!;
  private readonly main = document.getElementById("main")!;
  private readonly search = new SearchField(this.server, (key) => this.start(key));
  private about: About | null = null;
  private walk: WalkPanel | null = null;
  private overview: OverviewPanel | null = null;
  private id = "";

  constructor() {
    this.server.onResult = (result) => this.onResult(result);
    this.server.onReachable = (isReachable) => this.onReachable(isReachable);
    this.store.onChange(() => void this.show());
    document.addEventListener("keydown", (event) => this.onKey(event));
    // Another tab, or the harvest itself, may have changed the result meanwhile.
    window.addEventListener("focus", () => void this.server.ask("about", {}, "look").catch(() => undefined));
    window.addEventListener("unhandledrejection", (event) => this.fail(event.reason));
    window.addEventListener("error", (event) => this.fail(event.error ?? event.message));
  }

  /** Ask for the result; `renew` opens what is now under its name. */
  async open(renew = false): Promise<void> {
    this.main.setAttribute("aria-busy", "true");
    try {
      this.id = "";
      const about = await this.server.ask<About>("about", { renew });
      this.about = about;
      this.walk = new WalkPanel(this.server, this.store, about);
      this.overview = new OverviewPanel(this.server, this.store, about, () => void this.open(true));
      document.title = `${nameOf(about)} \u2013 lit-attr view`;
      const partial = about.partial && `Partial result: ${about.partial} harvested. Values are of these alone.`;
      this.banners.set("partial", partial ? { text: partial } : null);
      const { of } = this.store.state;
      const other = of && of !== this.id ? "This link was made with another result: the same keys are shown in the one that is open." : null;
      this.note("other", renew ? null : other);
      this.store.amend({ ...this.store.state, of: this.id });
      // Before what may be overtaken by a step: then nothing comes back here.
      this.main.removeAttribute("aria-busy");
      await this.show();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const again = h("button", { type: "button", onclick: () => void this.open(true) }, "Try again");
      this.main.removeAttribute("aria-busy");
      fill(this.main, notice(error.message, true, again));
    }
  }

  private async show(): Promise<void> {
    const { state } = this.store;
    const { about } = this;
    if (!about) return;
    if (state.metric === "attr_abs" && about.why_no_abs) {
      // A link of another result, or an address that was edited.
      this.note("metric", `${about.why_no_abs}. What is shown is attr.`);
      return this.store.amend({ ...state, metric: "attr" });
    }
    if (state.sure && about.why_no_errors) {
      this.note("sure", `Which edges are sure is not known: ${about.why_no_errors}. What is shown are all.`);
      return this.store.amend({ ...state, sure: false });
    }
    const sample = state.view !== "about" && state.metric === "attr_abs" && about.abs_sample;
    this.banners.set("sample", sample ? { text: `Values are estimates: ${sample}.` } : null);
    this.drawHeader(state);
    if (state.view === "about") fill(this.main, aboutPanel(about));
    else if (state.view === "overview") {
      this.put(this.overview!.element);
      await this.overview!.show();
    } else if (state.key) {
      this.put(this.walk!.element);
      await this.walk!.show();
    } else fill(this.main, notice("Search above for a component or token to begin a walk, or choose a cell of the overview."));
  }

  private put(element: HTMLElement): void {
    if (this.main.firstElementChild !== element || this.main.childElementCount > 1) this.main.replaceChildren(element);
  }

  private drawHeader(state: State): void {
    const go = (change: Partial<State>): void => this.store.go({ ...this.store.state, ...change });
    const about = this.about!;
    const views = VIEWS.map(({ view, label }) =>
      h("button", { type: "button", "aria-current": state.view === view ? "page" : null, "data-focus": view, onclick: () => go({ view }) }, label),
    );
    if (!this.header.childElementCount) {
      this.header.append(h("div", { class: "name" }), this.search.element, h("nav", { class: "views", "aria-label": "Views" }), h("div", { class: "switches" }));
    }
    const [name, , nav, switches] = [...this.header.children] as [Element, Element, Element, Element];
    fill(
      name,
      h("h1", {}, nameOf(about)),
      h("p", {}, `${whole(about.n_tokens)} tokens, `, h("span", { class: about.partial ? "partial" : "" }, coverageOf(about))),
    );
    fill(nav, ...views);
    const isAsked = state.view !== "about";
    // The map is of magnitudes: only the lists of a pair have signs.
    const hasSigns = state.view === "walk" || (isAsked && state.pair.length === 2);
    fill(
      switches,
      isAsked && choice("metric", "metric", [{ value: "attr", label: "attr" }, { value: "attr_abs", label: "attr_abs", title: about.why_no_abs ?? "effect on the activation's magnitude", disabled: about.why_no_abs !== null }], state.metric, (metric) => go({ metric })),
      hasSigns && choice("sign", "sign", [{ value: "both", label: "both" }, { value: "positive", label: "+", title: "positive" }, { value: "negative", label: "\u2212", title: "negative" }], state.sign, (sign) => go({ sign })),
      isAsked && choice("scale", "values", [{ value: "normalised", label: "normalised" }, { value: "raw", label: "raw", title: "sums as they are stored" }], state.raw ? "raw" : "normalised", (scale) => go({ raw: scale === "raw" })),
      state.view === "walk" && choice("neighbours", "neighbours", [{ value: "all", label: "all" }, { value: "components", label: "components", title: "no tokens of the embedding and the output" }], state.components ? "components" : "all", (kind) => go({ components: kind === "components" })),
      hasSigns && choice("sure", "edges", [{ value: "all", label: "all" }, { value: "sure", label: "sure ones", title: about.why_no_errors ?? "zero is not in their 95 % intervals; those without an interval are hidden, too", disabled: about.why_no_errors !== null }], state.sure ? "sure" : "all", (which) => go({ sure: which === "sure" })),
      h(
        "div",
        { class: "buttons" },
        h("button", { type: "button", disabled: this.store.depth === 0, title: "Undo (U)", "data-focus": "undo", onclick: () => this.store.undo() }, "Undo"),
        h("button", { type: "button", "data-focus": "link", onclick: (event: Event) => void copyLink(event.target as HTMLElement) }, "Copy link"),
      ),
    );
  }

  private start(key: string): void {
    this.store.go({ ...this.store.state, view: "walk", key, walk: [] });
  }

  private onResult({ id, state }: ResultState): void {
    this.id ||= id;
    const text = state !== "same" ? CHANGES[state] : this.id !== id ? "Another result was opened, in another tab: what is shown mixes both." : null;
    this.banners.set("changed", text ? { text, isError: true, action: { label: "Open what is there now", run: () => void this.open(true) } } : null);
  }

  private onReachable(isReachable: boolean): void {
    const action = { label: "Try again", run: () => void this.open() };
    this.banners.set("gone", isReachable ? null : { text: "The server does not answer. Is lit-attr view still running?", isError: true, action });
  }

  private onKey(event: KeyboardEvent): void {
    const isTyping = (event.target as Element).closest("input:not([type=radio]):not([type=range]), select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") this.search.focus();
    else if (event.key.toLowerCase() === "u") this.store.undo();
    else return;
    event.preventDefault();
  }

  private fail(error: unknown): void {
    const text = error instanceof Error ? error.message : String(error);
    if (text.startsWith("ResizeObserver")) return; // the browser's own word that a picture was drawn a frame later
    this.note("failed", `A mistake in this page: ${text}`, true);
  }

  /** A banner that goes away when it was read. */
  private note(name: string, text: string | null, isError = false): void {
    const action = { label: "I see", run: () => this.banners.set(name, null) };
    this.banners.set(name, text ? { text, isError, action } : null);
  }
}

async function copyLink(button: HTMLElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address bar";
  }
  window.setTimeout(() => (button.textContent = "Copy link"), 2000);
}

void new Page().open();
