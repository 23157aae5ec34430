// api.js - requests to the server; an error says in the person's language what the server said
import { failure, t } from "./i18n.js";
import { tellTabs } from "./tabs.js";

export class ApiError extends Error {
    constructor(status, said, field) {
        const { message, detail } = status ? failure(status, said, field) : { message: t("error.offline") };
        super(message);
        Object.assign(this, { status, field, detail });
    }
}

export const get = (path, query) => request("GET", path + queryString(query));
export const post = (path, body, headers) => request("POST", path, body ?? {}, headers);
export const put = (path, body) => request("PUT", path, body);
export const remove = path => request("DELETE", path);

/** {a: 1, b: "", c: null} -> "?a=1" */
export function queryString(values = {}) {
    const filled = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
    return filled.length ? "?" + new URLSearchParams(filled) : "";
}

async function request(method, path, body, headers = {}) {
    const options = { method, headers: { Accept: "application/json", ...headers } };
    if (body !== undefined) {
        options.body = JSON.stringify(body);
        options.headers["Content-Type"] = "application/json";
    }
    let answer;
    try {
        answer = await fetch(path, options);
    } catch {
        throw new ApiError(0);
    }
    const value = answer.status === 204 ? null : await answer.json().catch(() => null);
    if (!answer.ok) throw new ApiError(answer.status, value?.error, value?.field);
    if (method !== "GET") tellTabs(path);
    return value;
}

/** Send a file as it is.  onProgress gets 0 … 1; the answer or an ApiError as in request. */
export function sendFile(path, file, type, onProgress) {
    return new Promise((resolve, reject) => {
        const sending = new XMLHttpRequest();
        sending.open("POST", path);
        sending.setRequestHeader("Content-Type", type);
        sending.responseType = "json";
        sending.upload.onprogress = event => event.lengthComputable && onProgress(event.loaded / event.total);
        sending.onerror = () => reject(new ApiError(0));
        sending.onload = () => sending.status < 300 ? resolve(sending.response) : reject(
            new ApiError(sending.status, sending.response?.error, sending.response?.field));
        sending.send(file);
    });
}
