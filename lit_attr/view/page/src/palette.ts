/** Colours of magnitudes that span many powers of ten. */

import { scaleSequentialLog } from "d3-scale";
import { interpolateCividis } from "d3-scale-chromatic";

/** From a magnitude to its colour, told apart with every kind of colour vision; the smallest of many powers are one. */
export function magnitudes(values: number[]): (value: number) => string {
  const positive = values.filter((value) => value > 0);
  const high = Math.max(...positive, 1e-30);
  const low = Math.max(Math.min(...positive, high), high / 1e6);
  const scale = scaleSequentialLog(interpolateCividis).domain([low === high ? high / 10 : low, high]).clamp(true);
  return (value) => scale(value);
}

/** Whether dark text is read better on a colour. */
export function isLight(colour: string): boolean {
  const [red = 0, green = 0, blue = 0] = (colour.match(/\d+/g) ?? []).map(Number);
  const linear = (part: number): number => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) > 0.18;
}
