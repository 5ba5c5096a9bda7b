/**
 * What people say of an answer, from their browser to a Thumbwheel gateway. No dependency, no build step.
 *
 *   thumb ─► queue (localStorage) ─► one at a time, in order ─► POST /v1/feedback
 *                │                        └ no answer, 429, 5xx: wait (back-off, Retry-After), then go on
 *                └ the page is left: sendBeacon to /v1/feedback/batch; an item leaves the queue only when answered
 *
 * Every item has an id that makes it count once, however often it is sent, and says when it was given: what waited keeps
 * its place among what others said. Importing this sends what an earlier page left waiting.
 */

const PREFIX = "thumbwheel.item.";
const NOT_BEFORE = "thumbwheel.not-before";
const LIMITS = { items: 100, characters: 500_000, age: 7 * 24 * 3600_000 };
const BEACON_BYTES = 60_000; // browsers refuse beacons of more than 64 KiB, all that are on their way together
const TIMEOUT = 15_000;
const RETRY = { first: 1_000, most: 300_000, asked: 3600_000 }; // milliseconds

const memory = new Map(); // items that localStorage didn't take
const waiting = new Map(); // id -> what settles its promise
const gone = new Set(); // ids answered for; localStorage may still show what another tab has just removed
const beaconed = new Set(); // ids sent as this page was left; one page leaves twice (hidden, then closed)
let clock = 0; // of the latest id
let attempts = 0; // in vain, one after the other
let resumeAt = 0; // no attempt before this moment
let timer;
let turn = Promise.resolve(); // one attempt at a time
let channel; // tells the other tabs what became of their items

/** Feedback on one answer. Its methods resolve to `{id, status}` and never reject, unless `strict` is asked for. */
export function thumbwheel({ url = "", token, responseId, user, purposes, strict = false } = {}) {
  const base = String(url).replace(/\/+$/, "") + "/v1/feedback";
  const say = (kind, text) => {
    const id = uuid7();
    const settled = new Promise((resolve) => waiting.set(id, resolve));
    put(id, { url: base, body: { id, kind, text, token, response_id: responseId, user, purposes } });
    next();
    return strict ? settled.then(orThrow) : settled;
  };
  return {
    thumbsUp: (reason) => say("thumbs_up", reason),
    thumbsDown: (reason) => say("thumbs_down", reason),
    withdraw: () => say("withdrawal"),
    comment: (text) => say("comment", text),
    correct: (text) => say("correction", text),
    flag: (reason) => say("flag", reason),
    copied: () => say("copy"),
    edited: (text) => say("edit", text),
    regenerated: () => say("regenerate"),
  };
}

/** Two thumbs as buttons inside `element`; pressing the pressed one takes the thumb back. */
export function mountThumbs(element, { labels, onResult, ...options } = {}) {
  const words = { group: "Rate this answer", up: "Good answer", down: "Bad answer", ...labels };
  const feedback = thumbwheel({ ...options, strict: false });
  const group = document.createElement("div");
  group.className = "thumbwheel";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", words.group);
  let pressed = null;
  let presses = 0;
  const show = (button) => {
    pressed = button;
    for (const each of group.children) {
      each.setAttribute("aria-pressed", String(each === button));
      each.querySelector("path").setAttribute("fill", each === button ? "currentColor" : "none");
    }
  };
  const onPress = async (button, say) => {
    const before = pressed;
    const press = (presses += 1);
    show(before === button ? null : button);
    const result = await (before === button ? feedback.withdraw() : say());
    if (result.status === "refused" && press === presses) show(before);
    onResult?.(result);
  };
  for (const [name, say] of Object.entries({ up: feedback.thumbsUp, down: feedback.thumbsDown })) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = `thumbwheel-${name}`;
    button.setAttribute("aria-label", words[name]);
    button.append(thumb(name));
    button.addEventListener("click", () => onPress(button, say));
    group.append(button);
  }
  show(null);
  element.append(group);
  return { ...feedback, element: group };
}

/** Try now, rather than when the next attempt is due; resolves when there is nothing left to try at present. */
export function flush() {
  resumeAt = attempts = 0;
  return next();
}

function next() {
  clearTimeout(timer);
  const attempt = async () => {
    const wait = Math.max(resumeAt, Number(read(NOT_BEFORE) ?? 0)) - Date.now();
    // A clock that was set back must not silence the page for ever.
    if (wait > 0 && wait <= RETRY.asked) return later({ code: "waiting_to_retry", wait });
    try {
      await navigator.locks.request("thumbwheel", drain); // one tab at a time; the others find less in the queue
    } catch {
      await drain(); // no locks outside https, nor where the page may keep nothing
    }
  };
  turn = turn.then(attempt).catch(() => {});
  return turn;
}

async function drain() {
  for (let id = ids()[0]; id; id = ids()[0]) {
    const item = parse(id);
    const outcome = item ? await send(item) : { status: "refused", code: "unreadable" };
    if (outcome.wait >= 0) return later(outcome);
    attempts = 0;
    channel?.postMessage([id, outcome]);
    remove(id);
    settle(id, outcome);
  }
}

function later({ wait, ...why }) {
  resumeAt = Date.now() + wait;
  clearTimeout(timer);
  timer = setTimeout(next, wait);
  for (const id of [...waiting.keys()]) settle(id, { ...why, status: "waiting" });
}

/** What became of an item; one that has to `wait` (milliseconds) has not been answered for good. */
async function send({ url, body }) {
  let response;
  try {
    // A string goes as text/plain, for which no browser asks the gateway's permission first (no preflight).
    const signal = AbortSignal.timeout(TIMEOUT);
    response = await fetch(url, { method: "POST", body: JSON.stringify(body), credentials: "omit", signal });
  } catch {
    return { code: "unreachable", wait: backOff() };
  }
  const said = await response.json().catch(() => ({}));
  if (response.ok) return { status: "recorded", responseId: said.response_id };
  const why = { httpStatus: response.status, code: said.error?.code, message: said.error?.message };
  if (response.status < 500 && ![408, 425, 429].includes(response.status)) return { status: "refused", ...why };
  const asked = retryAfter(response.headers.get("Retry-After"));
  if (asked > 0) write(NOT_BEFORE, String(Date.now() + asked));
  return { ...why, wait: Math.max(asked, backOff()) };
}

/** Full jitter: anything between nothing and the limit, which doubles, so that many browsers don't come at once. */
function backOff() {
  return Math.random() * Math.min(RETRY.most, RETRY.first * 2 ** attempts++);
}

function retryAfter(header) {
  const milliseconds = /^\d+$/.test(header ?? "") ? Number(header) * 1000 : Date.parse(header ?? "") - Date.now();
  return Math.min(Math.max(milliseconds || 0, 0), RETRY.asked);
}

function settle(id, outcome) {
  waiting.get(id)?.({ id, ...outcome });
  waiting.delete(id);
}

function orThrow(outcome) {
  if (outcome.status === "recorded") return outcome;
  const message = `feedback ${outcome.id} is ${outcome.status}: ${outcome.message ?? outcome.code}`;
  throw Object.assign(new Error(message), { ...outcome, message });
}

function leave() {
  const bodies = new Map();
  let bytes = 0;
  for (const id of ids()) {
    const item = parse(id);
    if (!item || beaconed.has(id)) continue;
    bytes += new Blob([JSON.stringify(item.body)]).size + 1;
    if (bytes > BEACON_BYTES) break; // the rest, and whatever follows it, waits for the next page
    const batch = `${item.url}/batch`;
    bodies.set(batch, [...(bodies.get(batch) ?? []), item.body]);
  }
  for (const [url, items] of bodies) {
    if (navigator.sendBeacon(url, JSON.stringify({ items }))) for (const { id } of items) beaconed.add(id);
  }
}

// The queue: one localStorage entry an item, so that no tab overwrites another's; ids sort by time.

function ids() {
  let stored = [];
  try {
    stored = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {} // the user allows no storage: the queue lives as long as the page
  const all = [...stored, ...memory.keys()].map((key) => key.slice(PREFIX.length));
  return all.filter((id) => !gone.has(id)).sort();
}

function put(id, item) {
  write(PREFIX + id, JSON.stringify(item));
  let [count, characters] = [0, 0];
  for (const each of ids().reverse()) {
    count += 1;
    characters += read(PREFIX + each)?.length ?? 0;
    const tooOld = Date.now() - momentOf(each) > LIMITS.age;
    if (!tooOld && count <= LIMITS.items && characters <= LIMITS.characters) continue;
    remove(each); // the newest are kept
    settle(each, { status: "dropped", code: tooOld ? "too_old" : "queue_full" });
  }
}

function write(key, text) {
  try {
    localStorage.setItem(key, text);
  } catch {
    memory.set(key, text);
  }
}

function read(key) {
  try {
    return localStorage.getItem(key) ?? memory.get(key);
  } catch {
    return memory.get(key);
  }
}

function remove(id) {
  gone.add(id);
  memory.delete(PREFIX + id);
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {}
}

function parse(id) {
  try {
    const { url, body } = JSON.parse(read(PREFIX + id));
    return { url, body: { ...body, id, occurred_at: new Date(momentOf(id)).toISOString() } };
  } catch {
    return null; // not ours, or cut off
  }
}

/** A UUID of version 7 (RFC 9562): milliseconds, then chance. Later ones of one page sort after earlier ones. */
function uuid7() {
  clock = Math.max(Date.now(), clock + 1);
  const chance = crypto.getRandomValues(new Uint8Array(10));
  chance[0] = 0x70 | (chance[0] & 0x0f);
  chance[2] = 0x80 | (chance[2] & 0x3f);
  const hex = clock.toString(16).padStart(12, "0") + [...chance].map((b) => b.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/** When an item was made, in Unix milliseconds; NaN for an id that is not ours. */
function momentOf(id) {
  return parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}

function thumb(name) {
  const make = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const svg = make("svg", { viewBox: "0 0 24 24", width: 20, height: 20, "aria-hidden": "true" });
  const d = "M3 11h4v10H3zM7 11l4-8c2 0 3 1 3 3l-1 4h6c1 0 2 1 2 2l-2 7c0 1-1 2-2 2H7z";
  const turned = name === "down" ? { transform: "rotate(180 12 12)" } : {};
  svg.append(make("path", { d, stroke: "currentColor", "stroke-width": 1.6, "stroke-linejoin": "round", ...turned }));
  return svg;
}

function start() {
  channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("thumbwheel") : undefined;
  channel?.addEventListener("message", ({ data: [id, outcome] }) => {
    gone.add(id);
    settle(id, outcome);
  });
  addEventListener("online", flush);
  addEventListener("pagehide", leave);
  document.addEventListener("visibilitychange", () => (document.visibilityState === "hidden" ? leave() : next()));
  if (ids().length) next();
}

if (typeof document !== "undefined") start(); // a server that renders pages may import this file too
