// The API key of this tab. It is kept in sessionStorage: closing the tab forgets it, and no other tab sees it.
//
//   import { fetchWithKey, login, logout, currentKey } from "./key.js";
//   const response = await fetchWithKey("recommend", { method: "POST", body, headers });   // in place of fetch
//   if (response.status === 401) { show a field; await login(value) }                      // -> scopes, or null
//
// `window` gets the event "seqrec-key-needed" when a request was refused because there is no valid key.

const NAME = "seqrec-key";

/** The key of this tab, or null. */
export function currentKey() {
  return sessionStorage.getItem(NAME);
}

/** Forget the key. */
export function logout() {
  sessionStorage.removeItem(NAME);
}

/** As fetch, with the key. It goes to this service only: a request to another origin is sent without it. */
export async function fetchWithKey(path, options = {}) {
  const key = currentKey();
  const headers = new Headers(options.headers);
  if (key !== null && new URL(path, document.baseURI).origin === location.origin) {
    headers.set("authorization", `Bearer ${key}`);
  }
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) window.dispatchEvent(new CustomEvent("seqrec-key-needed"));
  return response;
}

/** Keep a key if the service accepts it: {name, scopes, ...} of it, or null where it is not valid. */
export async function login(key) {
  const value = key.trim();
  // A header cannot carry anything else, and no key has it.
  if (!/^[\x21-\x7e]+$/.test(value)) return null;
  const response = await fetch("key", { headers: { authorization: `Bearer ${value}` } });
  if (response.status === 401) return null;
  if (!response.ok) throw new Error(`The key cannot be checked: HTTP ${response.status}`);
  sessionStorage.setItem(NAME, value);
  return response.json();
}
