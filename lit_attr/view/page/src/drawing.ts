/** The drawing of the subgraph, and how it is walked. */

import { scaleSqrt } from "d3-scale";
import { select, type Selection } from "d3-selection";
import { curveBumpY, line } from "d3-shape";
import { intervalText, isUnsure, valueText } from "./estimates";
import { chipText, named, signed } from "./format";
import { arrowTarget } from "./keyboard";
import { NODE_HEIGHT, place, type Layout, type Link, type Placed } from "./layout";
import type { DrawnEdge, GraphNode, Subgraph } from "./types";
import { zoomable, type Zoomed } from "./zooming";

export interface Marks {
  key: string;
  walk: string[];
  pins: string[];
}

export interface Actions {
  step(key: string): void;
  pin(key: string): void;
  inspect(edge: DrawnEdge): void;
}

const FONT = "12.5px system-ui, sans-serif";
const PADDING = 22;
const NARROWEST = 46;
/** What dotted edges are. */
export const UNSURE = "not told apart from zero";
/** Dots are thinner than lines, and can be seen. */
const [THINNER, THINNEST] = [0.6, 1.6];

export class Drawing {
  readonly svg: SVGSVGElement;
  private layer: Selection<SVGGElement, unknown, null, undefined>;
  private zoom: Zoomed;
  private layout: Layout | null = null;
  private shown: { graph: Subgraph; marks: Marks } | null = null;
  private lit: string | null = null;

  constructor(
    private readonly order: string[],
    private readonly few: number,
    private readonly actions: Actions,
  ) {
    const root = select(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
    this.svg = root.attr("class", "drawing").attr("role", "group").node()!;
    this.layer = root.append("g");
    this.zoom = zoomable(this.svg, this.layer.node()!);
  }

  get controls(): Zoomed {
    return this.zoom;
  }

  /** Draw a graph, or the one before anew where the width has changed. */
  draw(width: number, graph = this.shown?.graph, marks = this.shown?.marks): void {
    if (!graph || !marks || width <= 0) return;
    const isNew = graph !== this.shown?.graph || width !== this.layout?.width;
    this.shown = { graph, marks };
    const focused = document.activeElement?.getAttribute("data-key");
    this.layout = place(graph.nodes, graph.edges, this.order, width, measure);
    const { height } = this.layout;
    select(this.svg).attr("width", width).attr("height", height).attr("viewBox", `0 0 ${width} ${height}`);
    select(this.svg).attr("aria-label", `${graph.nodes.length} nodes, ${graph.edges.length} edges, the embedding at the bottom`);
    if (isNew) this.zoom.reset();
    this.lit = null;
    this.layer.selectAll("*").remove();
    this.drawRows(this.layout);
    this.drawLinks(this.layout);
    this.drawNames(this.layout);
    this.drawNodes(this.layout, marks);
    this.light(null);
    if (focused) this.nodeOf(focused)?.focus({ preventScroll: true });
  }

  private drawRows({ rows, width }: Layout): void {
    const row = this.layer.append("g").attr("class", "row").selectAll("rect").data(rows).join("rect");
    row.attr("x", 0).attr("width", width).attr("y", (r) => r.top).attr("height", (r) => r.height).attr("rx", 8);
  }

  /** The names of layers, over the links. */
  private drawNames({ rows, gutter }: Layout): void {
    this.layer
      .append("g")
      .attr("class", "row")
      .selectAll("text")
      .data(rows)
      .join("text")
      .attr("x", 10)
      .attr("y", (r) => (gutter ? r.top + r.height / 2 : r.top + 14))
      .attr("dy", gutter ? "0.35em" : 0)
      .text((r) => r.layer);
  }

  private drawLinks({ links }: Layout): void {
    const largest = Math.max(...links.map(({ edge }) => Math.abs(edge.value)), 1e-30);
    const thickness = scaleSqrt([0, largest], [0.8, 5]);
    const curve = line().curve(curveBumpY);
    const path = ({ points }: Link): string | null => curve(points);
    // The weaker ones are thinner, and over the others.
    const sorted = [...links].sort((a, b) => Math.abs(b.edge.value) - Math.abs(a.edge.value));
    const link = this.layer.append("g").selectAll("g").data(sorted).join("g").attr("class", linkClass);
    link.append("path").attr("class", "line").attr("d", path).attr("stroke-width", ({ edge }) => {
        const width = thickness(Math.abs(edge.value));
        return isUnsure(edge) ? Math.max(width * THINNER, THINNEST) : width;
      });
    link
      .append("path")
      .attr("class", "touch")
      .attr("d", path)
      .on("click", (_, { edge }) => this.actions.inspect(edge))
      .append("title")
      .text(({ edge }) => [`${named(edge.source, edge.source_token)} \u2192 ${named(edge.target, edge.target_token)}: ${valueText(edge.value, edge)}`, intervalText(edge, this.few)].filter(Boolean).join("; "));
  }

  private drawNodes({ nodes }: Layout, { key, walk, pins }: Marks): void {
    const node = this.layer
      .append("g")
      .selectAll("g")
      .data(nodes)
      .join("g")
      .attr("class", ({ node: { component_key: its, was_harvested: isTarget } }) =>
        ["node", !isTarget && "unmeasured", its === key && "current", walk.includes(its) && "walked", pins.includes(its) && "pinned"].filter(Boolean).join(" "),
      )
      .attr("transform", ({ x, y }) => `translate(${x.toFixed(1)},${y})`)
      .attr("data-key", ({ node }) => node.component_key)
      .attr("role", "button")
      .attr("tabindex", ({ node }) => (node.component_key === key ? 0 : -1))
      .attr("aria-label", ({ node }) => describe(node, { key, walk, pins }))
      .on("click", (_, { node }) => this.actions.step(node.component_key))
      .on("keydown", (event: KeyboardEvent, one) => this.onKey(event, one))
      .on("mouseenter focus", (_, { node }) => this.light(node.component_key))
      .on("mouseleave blur", () => this.light(null));
    node
      .append("rect")
      .attr("x", (one) => -one.width / 2)
      .attr("y", -NODE_HEIGHT / 2)
      .attr("width", (one) => one.width)
      .attr("height", NODE_HEIGHT)
      .attr("rx", ({ node }) => (node.token === null ? 13 : 5));
    node.append("text").attr("dy", "0.35em").text(({ node }) => chipText(node));
    node.filter(({ node }) => pins.includes(node.component_key)).append("circle").attr("class", "pin").attr("cx", (one) => one.width / 2 - 4).attr("cy", -NODE_HEIGHT / 2 + 2).attr("r", 5);
    node.append("title").text(({ node }) => named(node.component_key, node.token) + (node.was_harvested ? "" : ": no target of the harvest, so that what feeds it was not measured"));
    this.layer.append("g").attr("class", "values");
  }

  /** Bring out the edges of a node, with their values; those of the node that is looked at otherwise. */
  private light(key: string | null): void {
    const links = this.layout?.links ?? [];
    this.lit = key ?? this.shown?.marks.key ?? null;
    const isOf = ({ from, to }: Link): boolean => [from.node.component_key, to.node.component_key].includes(this.lit ?? "");
    this.layer.selectAll<SVGGElement, Link>("g.link").classed("lit", isOf).classed("dim", (link) => key !== null && !isOf(link));
    const ends = links.filter(isOf).map((link) => ({ link, isSource: link.to.node.component_key === this.lit }));
    this.layer
      .select("g.values")
      .selectAll("text")
      .data(ends)
      .join("text")
      .attr("class", ({ link: { edge } }) => (isUnsure(edge) ? "unsure" : edge.value < 0 ? "negative" : "positive"))
      .attr("x", ({ link, isSource }) => (isSource ? link.from : link.to).x)
      .attr("y", ({ link, isSource }) => (isSource ? link.from.y - NODE_HEIGHT / 2 - 4 : link.to.y + NODE_HEIGHT / 2 + 12))
      .text(({ link }) => signed(link.edge.value));
  }

  private onKey(event: KeyboardEvent, { node }: Placed): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") this.actions.step(node.component_key);
    else if (event.key.toLowerCase() === "p") this.actions.pin(node.component_key);
    else {
      const next = arrowTarget(event.key, node.component_key, this.layout?.nodes ?? []);
      if (!next) return;
      this.nodeOf(next)?.focus();
    }
    event.preventDefault();
  }

  private nodeOf(key: string): SVGGElement | null {
    return this.svg.querySelector(`g.node[data-key="${CSS.escape(key)}"]`);
  }
}

function linkClass({ edge }: Link): string {
  return ["link", edge.value < 0 ? "negative" : "positive", edge.walked && "walked", isUnsure(edge) && "unsure"].filter(Boolean).join(" ");
}

function describe(node: GraphNode, { key, walk, pins }: Marks): string {
  const its = node.component_key;
  const marks = [its === key && "looked at", walk.includes(its) && "walked", pins.includes(its) && "pinned", !node.was_harvested && "no target of the harvest"];
  return [named(its, node.token), ...marks.filter(Boolean)].join(", ");
}

const canvas = document.createElement("canvas").getContext("2d");

function measure(node: GraphNode): number {
  const text = chipText(node);
  if (!canvas) return Math.max(text.length * 7.5 + PADDING, NARROWEST);
  canvas.font = FONT;
  return Math.max(Math.ceil(canvas.measureText(text).width) + PADDING, NARROWEST);
}
