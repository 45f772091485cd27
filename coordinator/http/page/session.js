// Who is here: the token, kept for this tab alone and sent as a header, and the caller that the service knows by it.
import {ApiError, call, useToken} from './api.js';

const KEY = 'tundra.token';

/** role: ROLE_VIEWER, ROLE_USER, ROLE_ADMIN; '' where the service asks for no token. */
export const session = {caller: null, role: '', tenants: false};

/** Takes up the token that the tab has, if any. */
export function begin() {
  useToken(sessionStorage.getItem(KEY) ?? '');
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Forgets the token. */
export function signOut() {
  sessionStorage.removeItem(KEY);
  useToken('');
  Object.assign(session, {caller: null, role: '', tenants: false});
}

function isMissing(error) {
  return error instanceof ApiError && (error.code === 'unimplemented' || error.status === 404);
}

/** Asks the service who the caller is. Throws ApiError; `unauthenticated` without a valid token. */
export async function identify() {
  try {
    session.caller = await call('AccessService/GetCaller');
    session.role = session.caller.role ?? '';
  } catch (error) {
    if (!isMissing(error)) throw error;
    session.caller = null;
    session.role = '';
  }
  session.tenants = false;
  if (session.caller) {
    try {
      await call('AccessService/ListTenants');
      session.tenants = true;
    } catch (error) {
      if (!isMissing(error) && error.code !== 'permission_denied') throw error;
    }
  }
}

/** Tries the token and keeps it when it is good. Throws ApiError, the former one being kept then. */
export async function signIn(token) {
  const before = sessionStorage.getItem(KEY);
  useToken(token);
  try {
    await identify();
    // Without AccessService any other call tells a good token from a bad one.
    if (!session.caller) await call('JobService/ListJobs', {pageSize: 1});
  } catch (error) {
    useToken(before ?? '');
    throw error;
  }
  sessionStorage.setItem(KEY, token);
}

/** Whether the caller may manage the service; it decides itself, this only chooses words. */
export function isAdmin() {
  return session.role === 'ROLE_ADMIN';
}

/** Whether the caller may steer jobs; the service decides, this only hides buttons. */
export function maySteer() {
  return session.role !== 'ROLE_VIEWER';
}
