/** The overview: a heat map of the edge mass between layers, which leads to the strongest edges of a pair of layers. */

import { Refusal, type Server } from "./api";
import { fill, h, notice } from "./dom";
import { meaningOf } from "./estimates";
import { magnitude, short } from "./format";
import { belowList, belowLists, edgeTable, notMeasured } from "./lists";
import { isLight, magnitudes } from "./palette";
import type { Store } from "./store";
import type { About, Masses, Overview, Pair } from "./types";

/** More columns are too narrow for numbers. */
const MOST_WITH_NUMBERS = 14;
const SIGNS = ["positive", "negative"] as const;
const UNMEASURED = "Hatched cells were not harvested: no component of the layer at the left was a target.";

export class OverviewPanel {
  readonly element: HTMLElement;
  private readonly map = h("section", { class: "card map", "aria-label": "Edge mass between layers" });
  private readonly pair = h("section", { class: "card pair", "aria-label": "Strongest edges between two layers" });
  private asked = new Set<string>();

  constructor(
    private readonly server: Server,
    private readonly store: Store,
    private readonly about: About,
    private readonly look: () => void,
  ) {
    this.element = h("div", { class: meaningOf(about) ? "overview estimated" : "overview" }, this.map, this.pair);
  }

  async show(): Promise<void> {
    await Promise.all([this.showMap(), this.showPair()]);
  }

  private async showMap(): Promise<void> {
    const { metric, raw, pair } = this.store.state;
    const anyway = this.asked.has("map");
    this.map.setAttribute("aria-busy", "true");
    if (anyway) fill(this.map, notice("Summing all edges of the result. This takes minutes for a large one; other questions are answered meanwhile."));
    try {
      const found = await this.server.ask<Overview>("overview", { metric, raw, anyway });
      fill(this.map, h("h2", {}, "Edge mass between layers"), ...(found.slow ? [this.slow("map")] : this.table(found, pair)));
    } catch (error) {
      this.fail(this.map, error);
    }
    this.map.removeAttribute("aria-busy");
  }

  private table({ sources, targets, values, harvested }: Masses, pair: string[]): HTMLElement[] {
    const colour = magnitudes(values.flat().filter((value): value is number => value !== null));
    const withNumbers = sources.length <= MOST_WITH_NUMBERS;
    const readout = h("p", { class: "readout", "aria-hidden": "true" }, "\u00a0");
    const cells = h("tbody");
    const tabbed = { done: false };
    // As in the drawing, the output is on top.
    [...targets].reverse().forEach((target) => {
      const [row, shares] = [values, harvested].map((rows) => rows[targets.indexOf(target)]!) as [(number | null)[], (number | null)[]];
      const cell = (source: string, column: number): HTMLElement => {
        const [value, share] = [row[column] ?? null, shares[column] ?? null];
        if (share === null) return h("td", { class: "empty" });
        const text = `${source} to ${target}: ${measured(value, share)}`;
        const isChosen = pair[0] === source && pair[1] === target;
        const button = h(
          "button",
          {
            type: "button",
            "aria-label": text,
            "aria-pressed": String(isChosen),
            "data-focus": `cell-${source}-${target}`,
            tabindex: isChosen || (!pair.length && !tabbed.done) ? 0 : -1,
            onclick: () => this.store.go({ ...this.store.state, pair: [source, target] }),
            onmouseenter: () => (readout.textContent = text),
            onfocus: () => (readout.textContent = text),
          },
          withNumbers && value !== null ? short(value) : "",
        );
        tabbed.done = true;
        if (value === null) button.classList.add("unmeasured");
        else if (value > 0) {
          button.style.background = colour(value);
          button.style.color = isLight(colour(value)) ? "#000" : "#fff";
        } else button.classList.add("zero");
        return h("td", {}, button);
      };
      cells.append(h("tr", {}, h("th", { scope: "row" }, target), ...sources.map(cell)));
    });
    const heads = sources.map((source) => h("th", { scope: "col" }, h("span", {}, source)));
    const table = h("table", { class: withNumbers ? "heat" : "heat dense" }, cells, h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "fed by"), ...heads)));
    table.addEventListener("keydown", (event) => walkCells(event, table));
    return [
      h("p", { class: "explain" }, "Sum of the magnitudes of all edges from the layer below to the layer at the left. Choose a cell for its strongest edges.", hasUnmeasured(harvested) && ` ${UNMEASURED}`),
      h("div", { class: "scroll" }, table),
      readout,
    ];
  }

  private async showPair(): Promise<void> {
    const { pair, metric, raw, sign, sure, rows } = this.store.state;
    const [source, target] = pair;
    if (!source || !target) return fill(this.pair, ...beginning());
    const name = `${source} ${target}`;
    const title = h("h2", {}, `Strongest edges from ${source} to ${target}`);
    this.pair.setAttribute("aria-busy", "true");
    try {
      const found = await this.server.ask<Pair>("pair", { source, target, metric, raw, sure, rows, anyway: this.asked.has(name) });
      if (found.slow) fill(this.pair, title, this.slow(name));
      else {
        const signs = SIGNS.filter((one) => sign === "both" || sign === one);
        const step = (key: string): void => this.store.go({ ...this.store.state, view: "walk", key, walk: [] });
        const { few } = this.about;
        const tables = signs.map((one) => {
          const edges = found[one];
          const listed = edges.length ? edgeTable(`${one} edges`, edges, { few, separated: found.n_separated[one] }, step) : null;
          return h("div", {}, listed, ...belowList(this.about, found, one, edges, "edges"));
        });
        const missing = notMeasured(found.n_not_harvested, this.size(found.target), found.target);
        const isKnown = found.n_not_harvested < this.size(found.target);
        fill(this.pair, title, missing, isKnown && h("div", { class: "tables" }, ...tables), ...belowLists(this.about, signs.flatMap((one) => found[one])));
      }
    } catch (error) {
      this.fail(this.pair, error);
    }
    this.pair.removeAttribute("aria-busy");
  }

  private size(layer: string): number {
    return this.about.layers.find((one) => one.layer === layer)?.size ?? 0;
  }

  private slow(name: string): HTMLElement {
    const anyway = (): void => {
      this.asked.add(name);
      void this.show();
    };
    return notice(
      "This result is large and has no index, so that all of it would be read. With an index the answer is there at once:",
      false,
      h("pre", {}, `lit-attr index ${this.about.file}`),
      h("button", { type: "button", onclick: () => this.look() }, "The index is written: look again"),
      h("button", { type: "button", class: "quiet", onclick: anyway }, "Compute it anyway (minutes)"),
    );
  }

  private fail(place: HTMLElement, error: unknown): void {
    if (!(error instanceof Refusal)) throw error;
    fill(place, notice(error.message, true));
  }
}

/** What a cell says in words. */
function measured(value: number | null, share: number): string {
  if (value === null) return "not harvested";
  const part = share < 1 ? ` (of the ${(share * 100).toPrecision(3)} % of its edges that were harvested)` : "";
  return `${magnitude(value)}${part}`;
}

function hasUnmeasured(harvested: (number | null)[][]): boolean {
  return harvested.flat().some((share) => share === 0);
}

/** What stands where edges are listed as soon as a cell is chosen. */
function beginning(): HTMLElement[] {
  return [
    h("h2", {}, "Where to begin"),
    h(
      "ul",
      {},
      h("li", {}, "Choose a cell: the strongest edges between the two layers are listed here, and each leads into a walk."),
      h("li", {}, "Search for a token, such as ", h("b", {}, "her"), ": as output it is what the model says, as embed what it reads."),
      h("li", {}, "Search for a layer, or for a component by its key, such as ", h("b", {}, "1.mlp.up:5"), "."),
    ),
    h("p", { class: "none" }, h("kbd", {}, "/"), " searches, ", h("kbd", {}, "U"), " undoes, arrow keys move in the map and in the drawing."),
  ];
}

function walkCells(event: KeyboardEvent, table: HTMLTableElement): void {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const cell = (event.target as Element).closest("td");
  if (!step || !cell) return;
  event.preventDefault();
  let [column, row] = [cell.cellIndex, (cell.parentElement as HTMLTableRowElement).rowIndex];
  // Layers that do not feed each other are passed over.
  for (;;) {
    column += step[0]!;
    row += step[1]!;
    const next = table.rows[row]?.cells[column];
    if (!next) return;
    const button = next.querySelector("button");
    if (button) return button.focus();
  }
}
