// The API as JSON: one function for all methods. Answers are kept with their tags, so that asking again is cheap, and
// what has not changed is the very same object.

const KEPT = 80;
const TIMEOUT_MS = 20000;

/** `code` is Connect's, for example "not_found"; "unreachable" when nothing answered. */
export class ApiError extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

const kept = new Map();
let token = '';

/** The token of all calls from here on; '' for none. */
export function useToken(value) {
  if (value !== token) kept.clear();
  token = value;
}

function headers(more) {
  return token ? {...more, Authorization: `Bearer ${token}`} : more;
}

async function send(url, options) {
  try {
    return await fetch(url, {...options, cache: 'no-store', credentials: 'omit', redirect: 'error'});
  } catch (error) {
    throw new ApiError('unreachable', `the service does not answer (${error.name})`, 0);
  }
}

async function errorOf(answer) {
  try {
    const error = await answer.json();
    return new ApiError(error.code, error.message || error.code, answer.status);
  } catch {
    return new ApiError('unreachable', `the service answered with HTTP ${answer.status}`, answer.status);
  }
}

/** The response of "JobService/GetJob" to the request. Throws ApiError. */
export async function call(method, request = {}) {
  const body = JSON.stringify(request);
  const reads = /\/(Get|List)/.test(method);
  const key = `${method} ${body}`;
  const before = reads ? kept.get(key) : undefined;
  const answer = await send(`/tundra.v1.${method}`, {
    method: 'POST',
    body,
    headers: headers({'Content-Type': 'application/json', 'Connect-Protocol-Version': '1',
      ...(before ? {'If-None-Match': before.etag} : {})}),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (answer.status === 304 && before) {
    kept.delete(key);
    kept.set(key, before);
    return before.value;
  }
  if (!answer.ok) throw await errorOf(answer);
  let value;
  try {
    value = await answer.json();
  } catch {
    throw new ApiError('unreachable', 'the answer broke off', 0);
  }
  const etag = answer.headers.get('ETag');
  if (reads && etag) {
    kept.delete(key);
    kept.set(key, {etag, value});
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return value;
}

/** Saves a file of an adapter where the browser keeps downloads. Throws ApiError. */
export async function download(adapter, filename) {
  const path = `/v1/${adapter.split('/').map(encodeURIComponent).join('/')}/files/${encodeURIComponent(filename)}`;
  const answer = await send(path, {headers: headers({})});
  if (!answer.ok) throw await errorOf(answer);
  let blob;
  try {
    blob = await answer.blob();
  } catch {
    throw new ApiError('unreachable', 'the download broke off; try again', 0);
  }
  const url = URL.createObjectURL(blob);
  const link = document.createElement('a');
  link.href = url;
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
