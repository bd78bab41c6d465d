// Types for a brigade.js that is checked, or an editor. They need those of Brigade only to know what a Job is.

import { Job, Result } from "@brigadecore/brigadier/out/job";

export interface Tries {
  /** How often it may be tried in one build. */
  attempts?: number;
  /** Milliseconds before the second attempt; doubled for each one after, a minute at most. Default: 1000. */
  backoff?: number;
}

export interface Kept {
  /** What results belong to, instead of bridge's run, epoch and step, or the commit and the event. */
  key?: string | number;
}

export interface DurableOptions extends Tries, Kept {
  /** No other job needs what this one leaves in shared storage. */
  stateless?: boolean;
  /** Variables that differ in every build, such as tokens, and say nothing about the result. */
  ignoreEnv?: string[];
}

/** A Job that is skipped when it has succeeded before, waited for when it runs, and else launched. */
export class DurableJob extends Job {
  constructor(name: string, image?: string, options?: DurableOptions);
  constructor(name: string, image: string, tasks: string[], options?: DurableOptions);
  run(): Promise<Result>;
  logs(): Promise<string>;
}

/** Gives what `fn` gives, as JSON makes it, and keeps it. */
export function checkpoint<T>(name: string, fn: () => T | Promise<T>, options?: Tries & Kept): Promise<T>;

/** Calls `fn(attempt)` until it succeeds, 3 times at most unless told otherwise. */
export function retry<T>(
  fn: (attempt: number) => T | Promise<T>,
  options?: Tries & { retryIf?: (error: any) => boolean }
): Promise<T>;

/** Has Brigade build an event of this project, once. */
export function emit(
  event: string,
  payload?: any,
  options?: Kept & { name?: string }
): Promise<{ id: string; duplicate: boolean }>;
