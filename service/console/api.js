// The public HTTP API as the console calls it. Paths are relative, so that it also works behind a proxy that puts a
// prefix before them.

import { fetchWithKey } from "./key.js";

/** What went wrong, as RFC 9457 says it; status 0 where no answer came at all. */
export class Problem extends Error {
  constructor(status, title, { detail, field, advice } = {}) {
    super(detail || title);
    Object.assign(this, { status, title, detail, field, advice });
  }
}

const OFFLINE_POLL = 2000;
const LOADING_POLL = 1000;

/** Events: "state" with `detail` {kind: "ready" | "loading" | "offline", text}. */
export const connection = new EventTarget();
let kind = "ready";

function setState(now, text = "") {
  if (now === kind && now === "ready") return;
  kind = now;
  connection.dispatchEvent(new CustomEvent("state", { detail: { kind: now, text } }));
}

async function send(method, path, body, signal) {
  let response;
  let text;
  try {
    response = await fetchWithKey(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service cannot be reached", { advice: "Is it still running? The console keeps trying." });
  }
  let data = null;
  try {
    data = JSON.parse(text);
  } catch {
    data = text; // /metrics is text; a proxy may answer in HTML
  }
  if (!response.ok) {
    const told = typeof data === "object" && data ? data : {};
    throw new Problem(response.status, told.title ?? `HTTP ${response.status} ${response.statusText}`, told);
  }
  return data;
}

let readiness = null;

/** Resolves when /readyz answers 200: to whether it had to wait. One poll for everyone who waits. */
function untilReady() {
  readiness ??= (async () => {
    for (let waited = false; ; waited = true) {
      try {
        await send("GET", "readyz");
        readiness = null;
        setState("ready");
        return waited;
      } catch (problem) {
        const offline = problem.status === 0;
        setState(offline ? "offline" : "loading", offline ? problem.title : problem.detail ?? "");
        await new Promise((resolve) => setTimeout(resolve, offline ? OFFLINE_POLL : LOADING_POLL));
      }
    }
  })();
  return readiness;
}

/**
 * The answer. While the service is loading it waits and asks again, which is safe for every call there is: items are
 * put and deleted by id. Raises Problem; without a connection at once, while the console goes on trying to reach it.
 */
export async function call(method, path, body, signal) {
  for (let retried = false; ; retried = true) {
    try {
      const data = await send(method, path, body, signal);
      if (kind === "offline") setState("ready");
      return data;
    } catch (problem) {
      if (problem.status === 0) untilReady();
      if (problem.status !== 503) throw problem;
      const waited = await untilReady();
      signal?.throwIfAborted();
      if (retried && !waited) throw problem; // ready, so this 503 means something else
    }
  }
}

export const get = (path, signal) => call("GET", path, undefined, signal);
export const post = (path, body, signal) => call("POST", path, body, signal);
export const remove = (path) => call("DELETE", path);

/** The metrics, which never wait for readiness. */
export const metricsText = (signal) => send("GET", "metrics", undefined, signal);

/** /readyz as it is, also where it answers 503. */
export async function readyz(signal) {
  const response = await fetchWithKey("readyz", { signal });
  return response.json();
}

/** A query string of what is given; objects as JSON, lists repeated. */
export function query(values) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (Array.isArray(value)) for (const one of value) parts.append(name, one);
    else if (value && typeof value === "object") {
      if (Object.keys(value).length) parts.set(name, JSON.stringify(value));
    } else if (value !== undefined && value !== null && value !== "") parts.set(name, value);
  }
  const text = parts.toString();
  return text ? `?${text}` : "";
}

export const itemPath = (id) => `items/${encodeURIComponent(id)}`;
export const userPath = (id) => `users/${encodeURIComponent(id)}`;
