// One websocket for the whole page: subscriptions outlive the connection, which comes back by itself.

import { readToken, serviceUrl, whenServiceReturns } from "./api.js";

const FIRST_DELAY_MILLISECONDS = 500;
const LONGEST_DELAY_MILLISECONDS = 15000;
const OPENING_MILLISECONDS = 10000;

/**
 * States: "idle" (nobody has subscribed), "connecting", "open", "lost" (waiting to try again).
 * A subscription's `receive` gets every message for it, `subscribed` and `reset` included.
 */
export class Live {
  #socket = null;
  #subscriptions = new Map();
  #watchers = new Set();
  #attempts = 0;
  #timer = null;
  state = "idle";

  constructor() {
    addEventListener("online", () => this.connectNow());
    whenServiceReturns(() => this.connectNow());
    addEventListener("offline", () => this.#drop());
    // A page that is left for good closes by itself; one kept for the back button would hold a dead socket.
    addEventListener("pageshow", (event) => event.persisted && this.reconnect());
  }

  /** Tells `watch` of the state now and of every change. */
  watchState(watch) {
    this.#watchers.add(watch);
    watch(this.state);
  }

  /**
   * Follows a channel: `{channel: "jobs"}` or `{channel: "job", id, from}`, where `from()` is the position to go on from.
   * Answers with the function that ends it.
   */
  subscribe({ channel, id, from }, receive) {
    const name = id === undefined ? channel : `${channel} ${id}`;
    const subscription = { channel, id, from, receive };
    this.#subscriptions.set(name, subscription);
    if (this.state === "open") this.#ask(subscription);
    else if (this.state === "idle") this.#connect();
    return () => {
      if (this.#subscriptions.get(name) !== subscription) return;
      this.#subscriptions.delete(name);
      if (this.state === "open") this.#send({ type: "unsubscribe", channel, id });
    };
  }

  /** Tries at once instead of waiting for the next turn. */
  connectNow() {
    if (this.state !== "lost") return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** Gives up a connection that has gone silent and makes a new one. */
  reconnect() {
    this.#drop();
    this.connectNow();
  }

  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.close();
    this.#lost();
  }

  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    for (const watch of this.#watchers) watch(state);
  }

  #connect() {
    this.#enter("connecting");
    const address = serviceUrl("api/v1/ws");
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.#socket = socket;
    // A network that swallows packets would otherwise leave the page "connecting" for minutes.
    const opening = setTimeout(() => this.#socket === socket && this.#drop(), OPENING_MILLISECONDS);
    const mine = (action) => (event) => this.#socket === socket && action(event);
    socket.addEventListener("open", mine(() => {
      clearTimeout(opening);
      this.#begin(socket);
    }));
    socket.addEventListener("message", mine((event) => this.#receive(JSON.parse(event.data))));
    socket.addEventListener("close", () => {
      clearTimeout(opening);
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#lost();
    });
  }

  async #begin(socket) {
    try {
      const token = await readToken();
      if (this.#socket !== socket) return;
      if (token) this.#send({ type: "auth", token });
    } catch {
      // A key that buys no token: the subscriptions are then answered as an anonymous caller's.
    }
    if (this.#socket !== socket) return;
    this.#enter("open");
    for (const subscription of this.#subscriptions.values()) this.#ask(subscription);
  }

  #lost() {
    const ceiling = Math.min(LONGEST_DELAY_MILLISECONDS, FIRST_DELAY_MILLISECONDS * 2 ** this.#attempts);
    this.#attempts += 1;
    // Half fixed, half random: pages that lost the same server do not all come back in the same moment.
    this.#timer = setTimeout(() => this.#connect(), ceiling / 2 + Math.random() * (ceiling / 2));
    this.#enter("lost");
  }

  #ask({ channel, id, from }) {
    this.#send({ type: "subscribe", channel, id, from: from?.() });
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  #receive(message) {
    this.#attempts = 0;
    const { type, channel, id } = message;
    if (type === "job" || type === "error" || channel === "jobs") this.#subscriptions.get("jobs")?.receive(message);
    if (id !== undefined && channel !== "jobs") this.#subscriptions.get(`job ${id}`)?.receive(message);
  }
}
