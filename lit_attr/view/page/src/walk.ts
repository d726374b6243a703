/** The walk: the drawing of what is around a component or token, and the lists beside it. */

import { Refusal, type Server } from "./api";
import { magnitudeField, menu, slider } from "./controls";
import { edgeDetail } from "./details";
import { fill, h, notice } from "./dom";
import { Drawing, UNSURE } from "./drawing";
import { meaningOf } from "./estimates";
import { captioned, described, saveCsv, saveJson, savePng, saveSvg } from "./exports";
import { brief, named, quoted } from "./format";
import { belowLists, edgeTable, hiddenText, neighbourLists, neighboursOf } from "./lists";
import { DEEPEST, format, MOST_BRANCHES, ROWS, stepTo, togglePin, type State } from "./state";
import type { Store } from "./store";
import type { About, DrawnEdge, EdgeByMetric, GraphNode, Neighbours, Subgraph } from "./types";

export class WalkPanel {
  readonly element: HTMLElement;
  private readonly head = h("div", { class: "head" });
  private readonly problem = h("div", { class: "problem" });
  private readonly settings = h("div", { class: "settings" });
  private readonly canvas = h("div", { class: "canvas" });
  private readonly detail = h("p", { class: "detail", role: "status" });
  private readonly edges = h("details", { class: "edges" });
  private readonly lists = h("aside", { class: "card lists", "aria-label": "Strongest sources and targets" });
  private readonly drawing: Drawing;
  private graph: Subgraph | null = null;
  private tokens = new Map<string, string | null>();

  constructor(
    private readonly server: Server,
    private readonly store: Store,
    private readonly about: About,
  ) {
    this.drawing = new Drawing(
      about.layers.map(({ layer }) => layer),
      about.few,
      { step: (key) => this.step(key), pin: (key) => this.pin(key), inspect: (edge) => void this.inspect(edge) },
    );
    this.canvas.append(this.drawing.svg);
    const picture = h("section", { class: "card picture", "aria-label": "Drawing" }, this.settings, this.canvas, legend(about), this.detail, this.edges);
    const columns = h("div", { class: meaningOf(about) ? "columns estimated" : "columns" }, picture, this.lists);
    this.element = h("div", { class: "walk" }, this.head, this.problem, columns);
    new ResizeObserver(() => this.drawing.draw(this.canvas.clientWidth)).observe(this.canvas);
  }

  async show(): Promise<void> {
    const { state } = this.store;
    this.drawHead(state, null);
    this.element.setAttribute("aria-busy", "true");
    try {
      const { metric, raw, components, sure, key, walk, pins, sign, k, depth, threshold, rows } = state;
      const common = { metric, raw, components, sure };
      const [found, graph] = await Promise.all([
        this.server.ask<Neighbours>("neighbours", { ...common, key, rows }),
        this.server.ask<Subgraph>("subgraph", { ...common, key, walk, pin: pins, sign, k, depth, threshold }),
      ]);
      for (const node of [found.node, ...graph.nodes]) this.tokens.set(node.component_key, node.token);
      this.element.removeAttribute("aria-busy");
      if (this.store.state !== state) return; // whoever asked is elsewhere by now
      // The server spells keys its way: a token's text becomes its id.
      const spelt = { ...state, key: found.node.component_key, walk: graph.walk, pins: graph.pins };
      if (format(spelt) !== format(state)) return this.store.amend(spelt);
      this.element.classList.remove("failed");
      fill(
        this.problem,
        found.was_harvested === false && notice(`${key} was no target of the harvest: what feeds it was not measured.`),
        ...graph.unknown.map((one) => notice(`${one.key} is left out of the drawing: ${one.why}`)),
      );
      this.drawHead(state, found.node);
      this.drawGraph(state, graph);
      this.drawSettings(state, graph);
      fill(this.lists, ...neighbourLists(found, { sign, about: this.about, step: (one) => this.step(one) }), ...belowLists(this.about, neighboursOf(found)), this.rowsField(state));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.element.removeAttribute("aria-busy");
      this.element.classList.add("failed");
      fill(this.problem, notice(error.message, true, h("p", {}, "Search above for a component or token, or undo the last step.")));
    }
  }

  private step(key: string): void {
    this.store.go(stepTo(this.store.state, key));
  }

  private pin(key: string): void {
    this.store.go(togglePin(this.store.state, key));
  }

  private drawHead(state: State, node: GraphNode | null): void {
    const { key, walk, pins } = state;
    const isPinned = pins.includes(key);
    const token = (one: string): string | null => this.tokens.get(one) ?? null;
    const crumb = (one: string): HTMLElement =>
      h("li", {}, h("button", { type: "button", class: "crumb", title: named(one, token(one)), "data-focus": `crumb-${one}`, onclick: () => this.step(one) }, label(one, token(one))));
    const trail = walk.length
      ? h(
          "nav",
          { "aria-label": "Walk" },
          h("ol", { class: "crumbs" }, ...walk.map(crumb), h("li", { "aria-current": "step" }, label(key, token(key)))),
          h("button", { type: "button", class: "quiet", "data-focus": "forget", onclick: () => this.store.go({ ...state, walk: [] }) }, "Forget the walk"),
        )
      : null;
    const pinned = pins.map((one) =>
      h(
        "li",
        {},
        h("button", { type: "button", class: "crumb", title: named(one, token(one)), onclick: () => this.step(one) }, label(one, token(one))),
        h("button", { type: "button", class: "unpin", "aria-label": `Unpin ${one}`, onclick: () => this.pin(one) }, "\u00d7"),
      ),
    );
    fill(
      this.head,
      h(
        "div",
        { class: "title" },
        h("h2", {}, node?.token != null ? h("span", { class: "token", title: quoted(node.token) }, brief(node.token, 120)) : null, h("span", { class: "key" }, key)),
        // What is not in the result cannot be pinned.
        this.tokens.has(key) && h("button", { type: "button", "aria-pressed": String(isPinned), "data-focus": "pin", onclick: () => this.pin(key) }, isPinned ? "Pinned" : "Pin"),
      ),
      trail,
      pins.length ? h("div", { class: "pins" }, h("span", {}, "Pinned"), h("ul", {}, ...pinned)) : null,
    );
  }

  private drawSettings(state: State, graph: Subgraph): void {
    const go = (change: Partial<State>): void => this.store.go({ ...this.store.state, ...change });
    // Of what the drawing begins with: where that is left out, so is what is further away, however strong.
    const begins = [state.key, ...state.pins];
    const first = graph.edges.filter(({ source, target }) => begins.includes(source) || begins.includes(target));
    const largest = Math.max(...first.map(({ value }) => Math.abs(value)), state.threshold);
    const { controls } = this.drawing;
    const zoom = (text: string, title: string, run: () => void): HTMLElement =>
      h("button", { type: "button", class: "square", title, "aria-label": title, onclick: run }, text);
    fill(
      this.settings,
      slider("k", "edges of a node (k)", { low: 1, high: MOST_BRANCHES, value: state.k }, (k) => go({ k })),
      slider("depth", "steps away", { low: 1, high: DEEPEST, value: state.depth }, (depth) => go({ depth })),
      magnitudeField("threshold", "smallest magnitude", { value: state.threshold, largest }, (threshold) => go({ threshold })),
      h(
        "div",
        { class: "tools" },
        zoom("\u2212", "Zoom out", () => controls.by(1 / 1.3)),
        zoom("+", "Zoom in", () => controls.by(1.3)),
        zoom("\u2922", "Show all", () => controls.reset()),
        menu("Export", this.exports()),
      ),
    );
  }

  private drawGraph(state: State, graph: Subgraph): void {
    this.graph = graph;
    this.drawing.draw(this.canvas.clientWidth, graph, { key: state.key, walk: state.walk, pins: state.pins });
    const few = state.threshold ? "No edges are as strong as the smallest magnitude asked for." : "It has no such edges.";
    const more = graph.n_left_out ? `${graph.n_left_out} edges further away are left out.` : null;
    const missing = graph.not_harvested.filter((one) => one.walked).map(({ source, target }) => `${source} \u2192 ${target} was not harvested.`);
    const unheld = graph.unheld.filter((one) => one.walked).map(({ source, target }) => `${source} \u2192 ${target} is not held: it is none of the strongest that were kept.`);
    const weaker = graph.not_held && "Of some nodes, weaker edges that were asked for were not kept.";
    const hidden = graph.n_unsure ? hiddenText(graph.n_unsure) : null;
    fill(this.detail, [graph.edges.length ? more : few, ...missing, ...unheld, weaker, hidden].filter(Boolean).join(" "));
    const step = (key: string): void => this.step(key);
    const sorted = [...graph.edges].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
    this.edges.hidden = !sorted.length;
    const inspect = (edge: DrawnEdge): void => void this.inspect(edge);
    fill(this.edges, h("summary", {}, `The ${sorted.length} edges of the drawing as a table`), edgeTable("edges of the drawing", sorted, { few: this.about.few }, step, inspect));
  }

  private rowsField({ rows }: State): HTMLElement {
    const select = h(
      "select",
      { id: "rows", "data-focus": "rows", onchange: () => this.store.go({ ...this.store.state, rows: Number(select.value) }) },
      ...ROWS.map((one) => h("option", { value: one, selected: one === rows }, String(one))),
    );
    return h("p", { class: "rows" }, h("label", { for: "rows" }, "rows of each list "), select);
  }

  private async inspect(edge: DrawnEdge): Promise<void> {
    const ends = `${named(edge.source, edge.source_token)} \u2192 ${named(edge.target, edge.target_token)}`;
    try {
      const found = await this.server.ask<EdgeByMetric>("edge", { source: edge.source, target: edge.target });
      fill(this.detail, ...edgeDetail(ends, found, this.about.few, this.about.abs_sample));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      fill(this.detail, `${ends}: ${error.message}`);
    }
  }

  private exports(): { label: string; run: () => void }[] {
    const { state } = this.store;
    const name = `lit-attr_${state.key}`;
    const missing = this.graph?.unknown.map(({ key }) => key) ?? [];
    const caption = captioned(state, this.about, missing);
    return [
      { label: "Picture as SVG", run: () => saveSvg(this.drawing.svg, caption, name) },
      { label: "Picture as PNG", run: () => void savePng(this.drawing.svg, caption, name) },
      { label: "Edges as CSV", run: () => saveCsv(state, this.graph?.edges ?? [], name) },
      { label: "Edges as JSON", run: () => saveJson(described(state, this.about, missing), this.graph?.edges ?? [], name) },
    ];
  }
}

function label(key: string, token: string | null): string {
  return token === null ? key : `${brief(token)} ${key}`;
}

function legend(about: About): HTMLElement {
  const entry = (name: string, text: string): HTMLElement => h("li", {}, h("span", { class: `swatch ${name}`, "aria-hidden": "true" }), text);
  return h(
    "ul",
    { class: "legend" },
    entry("positive", "positive"),
    entry("negative", "negative"),
    meaningOf(about) && entry("unsure", UNSURE),
    entry("walked", "walked"),
    entry("unmeasured", "no target of the harvest"),
    h("li", { class: "hint" }, "Edges run upwards. Click a node, or use arrow keys and Enter; P pins."),
  );
}
