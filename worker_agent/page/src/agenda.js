// What this page does when: events in the order of time, each run as soon as it is due.

import { nowUs } from "./clock.js";

export class Agenda {
  constructor(run) {
    this.run = run;
    this.events = [];
    this.next = 0;
    this.timer = null;
  }

  // Adds events: objects with `atUs`. Those in the past run at once.
  add(events) {
    this.events = [...this.events.slice(this.next), ...events];
    this.events.sort((a, b) => a.atUs - b.atUs);
    this.next = 0;
    this.#arm();
  }

  #arm() {
    clearTimeout(this.timer);
    if (this.next >= this.events.length) return;
    const waitMs = (this.events[this.next].atUs - nowUs()) / 1000;
    // A timer may fire a little early: it never runs an event before its time, it waits again.
    this.timer = setTimeout(() => this.#fire(), Math.min(Math.max(0, waitMs), 60_000));
  }

  #fire() {
    while (this.next < this.events.length && this.events[this.next].atUs <= nowUs()) {
      const event = this.events[this.next];
      this.next += 1;
      this.run(event);
    }
    this.#arm();
  }

  // Takes away and returns all events of a kind that have not run.
  take(matches) {
    const left = this.events.slice(this.next);
    this.events = left.filter((event) => !matches(event));
    this.next = 0;
    this.#arm();
    return left.filter(matches);
  }
}
