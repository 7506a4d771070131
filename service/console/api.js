// The public HTTP API as the console calls it. Paths are relative, so that it also works behind a proxy that puts a
// prefix before them.

/** What went wrong, as RFC 9457 says it; status 0 where no answer came at all. */
export class Problem extends Error {
  constructor(status, title, { detail, field, advice } = {}) {
    super(detail || title);
    Object.assign(this, { status, title, detail, field, advice });
  }
}

async function send(method, path, body, signal) {
  let response;
  let text;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service cannot be reached", { advice: "Is it still running? Then try again." });
  }
  let data = null;
  try {
    data = JSON.parse(text);
  } catch {
    // A proxy answers in HTML, and some answers have no body: the status says enough.
  }
  if (!response.ok) {
    throw new Problem(response.status, data?.title ?? `HTTP ${response.status} ${response.statusText}`, data ?? {});
  }
  return data;
}

let readiness = null;

/** Resolves when /readyz says yes: to whether it had to wait. One poll for everyone who waits. */
function untilReady() {
  readiness ??= (async () => {
    const notice = document.getElementById("loading");
    let waited = false;
    for (;;) {
      try {
        await send("GET", "readyz");
        break;
      } catch (problem) {
        notice.textContent = problem.status === 0 ? problem.title : `The model is loading. ${problem.detail ?? ""}`;
        notice.hidden = false;
        waited = true;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    notice.hidden = true;
    readiness = null;
    return waited;
  })();
  return readiness;
}

/**
 * The answer and how long it took, in ms. While the service is loading it waits and asks again, which is safe for
 * every call there is: items are put and deleted by id.
 */
export async function call(method, path, body, signal) {
  for (let retried = false; ; retried = true) {
    const start = performance.now();
    try {
      const data = await send(method, path, body, signal);
      return { data, ms: performance.now() - start };
    } catch (problem) {
      if (problem.status !== 503) throw problem;
      const waited = await untilReady();
      signal?.throwIfAborted();
      if (retried && !waited) throw problem; // ready, so this 503 means something else
    }
  }
}
