// The API as JSON: one function for all methods. Answers are kept with their tags, so that asking again is cheap, and
// what has not changed is the very same object.
import {saveFile} from './clipboard.js';

const KEPT = 80;
const TIMEOUT_MS = 20000;

/**
 * `code` is Connect's, for example "not_found"; "unreachable" when nothing answered. `fields` are those of the request
 * that are at fault, for example ["tenant.quota.devices"].
 */
export class ApiError extends Error {
  constructor(code, message, status, fields = []) {
    super(message);
    this.code = code;
    this.status = status;
    this.fields = fields;
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
    const faults = (error.details ?? []).flatMap((detail) => detail.debug?.fieldViolations ?? []);
    return new ApiError(error.code, error.message || error.code, answer.status, faults.map((fault) => fault.field));
  } catch {
    return new ApiError('unreachable', `the service answered with HTTP ${answer.status}`, answer.status);
  }
}

/**
 * The response of "JobService/GetJob" to the request. Throws ApiError. `once`: it is not asked again, so that the answer
 * need not be kept.
 */
export async function call(method, request = {}, {once = false} = {}) {
  const body = JSON.stringify(request);
  const reads = !once && /\/(Get|List)/.test(method);
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
  saveFile(blob, filename);
}
