// The JSON API. A problem becomes an Error whose message is its one sentence.

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function checked(response) {
  if (response.ok) return response;
  let detail = `The server answered ${response.status}.`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // not a problem document
  }
  throw new Problem(response.status, detail);
}

const BUSY = 503;
const TRIES = 4;

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });

/** fetch, again after a while if the server is busy: then it has done nothing yet. */
async function patient(address, options) {
  for (let tries = 1; ; tries++) {
    const response = await fetch(address, options);
    if (response.status !== BUSY || tries === TRIES) return response;
    await pause(Number(response.headers.get("Retry-After") ?? 5), options.signal);
  }
}

async function send(method, address, body, signal) {
  const options = { method, signal, headers: {} };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  try {
    return await checked(await patient(address, options));
  } catch (error) {
    if (error instanceof TypeError) throw new Problem(0, "The server does not answer; is `diffsim browse` still running?");
    throw error;
  }
}

export const get = async (address, signal) => (await send("GET", address, undefined, signal)).json();
export const post = async (address, body, signal) => (await send("POST", address, body, signal)).json();
export const remove = async (address) => (await send("DELETE", address)).json();
export const blob = async (address, body) => (await send("POST", address, body)).blob();

/** Ranked neighbours: onAnswer is called with the order of the first stage, then with that of the full score. */
export async function search(body, onAnswer, signal) {
  const response = await send("POST", "/api/search", body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const answer = JSON.parse(line);
      if (answer.problem) throw new Problem(answer.problem.status, answer.problem.detail);
      onAnswer(answer);
    }
    if (done) return;
  }
}

/** Give a picture to search with: {picture, width, height}. */
export async function upload(file) {
  try {
    const response = await patient("/api/uploads", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    return await (await checked(response)).json();
  } catch (error) {
    if (error instanceof TypeError) throw new Problem(0, "The picture could not be sent; it may be larger than 64 MB.");
    throw error;
  }
}

export const isUpload = (picture) => typeof picture === "string";
export const previewOf = (picture) => (isUpload(picture) ? `/uploads/${picture}` : `/previews/${picture}`);
export const smallOf = (picture) => (isUpload(picture) ? `/uploads/${picture}` : `/thumbnails/${picture}`);
export const fullOf = (item) => `/full/${item.id}?v=${item.version}`;
export const originalOf = (item) => `/originals/${item.id}`;
export const thumbnailOf = (item) => (isUpload(item.id) ? smallOf(item.id) : `/thumbnails/${item.id}?v=${item.version}`);
