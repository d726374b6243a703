/** Zooming and moving the drawing. */

import { select } from "d3-selection";
import { zoom, zoomIdentity } from "d3-zoom";

export interface Zoomed {
  by(factor: number): void;
  reset(): void;
}

/** Make a drawing zoom by buttons, Ctrl and the wheel, or two fingers, and move by dragging; the page scrolls as usual. */
export function zoomable(svg: SVGSVGElement, layer: SVGGElement): Zoomed {
  const behaviour = zoom<SVGSVGElement, unknown>()
    .scaleExtent([0.4, 4])
    .filter((event: WheelEvent & MouseEvent & TouchEvent) => {
      if (event.type === "wheel") return event.ctrlKey || event.metaKey;
      if (event.type === "dblclick") return false;
      if (event.type === "touchstart") return event.touches.length > 1;
      return !event.button && !(event.target as Element).closest(".node");
    })
    .on("zoom", (event) => layer.setAttribute("transform", String(event.transform)));
  const selected = select(svg).call(behaviour);
  return {
    by: (factor) => behaviour.scaleBy(selected, factor),
    reset: () => behaviour.transform(selected, zoomIdentity),
  };
}
