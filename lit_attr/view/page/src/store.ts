/** Keeps the state in the address, and tells when it changes. */

import { format, parse, type State } from "./state";

type Listener = (state: State, before: State) => void;

export class Store {
  private current: State;
  private listeners: Listener[] = [];

  constructor() {
    this.current = parse(location.hash);
    // Back, forward, and an address that was edited or pasted.
    window.addEventListener("popstate", () => this.take(parse(location.hash)));
  }

  get state(): State {
    return this.current;
  }

  /** How many steps can be undone on this page. */
  get depth(): number {
    return Number((history.state as { depth?: number } | null)?.depth ?? 0);
  }

  onChange(listener: Listener): void {
    this.listeners.push(listener);
  }

  /** Go to another state; it can be undone. */
  go(next: State): void {
    if (format(next) === format(this.current)) return;
    history.pushState({ depth: this.depth + 1 }, "", format(next));
    this.take(next);
  }

  /** Correct the state without a step: while a slider moves, or when the server spells a key its way. */
  amend(next: State): void {
    if (format(next) === format(this.current)) return;
    history.replaceState(history.state, "", format(next));
    this.take(next);
  }

  undo(): void {
    if (this.depth > 0) history.back();
  }

  private take(next: State): void {
    const before = this.current;
    this.current = next;
    for (const listener of this.listeners) listener(next, before);
  }
}
