/** Questions to the server. */

import type { ResultState } from "./types";

type Value = string | number | boolean | string[];

/** What the server, or its absence, says in words. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly isServerGone: boolean,
  ) {
    super(message);
  }
}

export class Server {
  /** Is told with every answer which result gave it. */
  onResult: (result: ResultState) => void = () => undefined;
  /** Is told whether the server answers at all. */
  onReachable: (isReachable: boolean) => void = () => undefined;

  private running = new Map<string, AbortController>();

  /**
   * Ask a question. A newer one of the same purpose ends it: its promise never settles then.
   */
  async ask<Answer>(question: string, parameters: Record<string, Value>, purpose = question): Promise<Answer> {
    this.running.get(purpose)?.abort();
    const control = new AbortController();
    this.running.set(purpose, control);
    try {
      const response = await fetch(`api/${question}?${query(parameters)}`, { signal: control.signal });
      const content = await response.json().catch((error) => {
        if (!(error instanceof SyntaxError)) throw error;
        throw new Refusal(`The server answered with status ${response.status}, and not in the way of lit-attr view.`, false);
      });
      this.onReachable(true);
      if (content.result) this.onResult(content.result);
      if (!response.ok) throw new Refusal(String(content.error), false);
      return content.answer as Answer;
    } catch (error) {
      if (control.signal.aborted) return new Promise<never>(() => undefined);
      if (error instanceof Refusal) throw error;
      this.onReachable(false);
      throw new Refusal("The server does not answer. Is lit-attr view still running?", true);
    }
  }
}

function query(parameters: Record<string, Value>): URLSearchParams {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (Array.isArray(value)) for (const one of value) found.append(name, one);
    else if (typeof value === "boolean") found.append(name, value ? "1" : "0");
    else found.append(name, String(value));
  }
  return found;
}
