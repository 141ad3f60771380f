// Requests of the pages, and in words why one was refused.

const REFUSED = { 401: "you are not logged in", 403: "you may only view", 429: "too many wrong tokens: wait" };

// Gets an address, or posts `values` to it as JSON. Resolves to `result` (JSON) and `problem` (empty: it was accepted).
export async function request(address, values) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) };
  try {
    const answer = await fetch(address, values === undefined ? {} : post);
    const result = answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : {};
    return { status: answer.status, result, problem: answer.ok ? "" : result.error ?? why(answer.status) };
  } catch {
    return { status: 0, result: {}, problem: "no connection" };
  }
}

// Why a request was refused that had no reason in its answer.
export function why(status) {
  return REFUSED[status] ?? `refused (${status})`;
}
