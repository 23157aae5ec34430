// tabs.js - what is changed in one tab, the person's other tabs follow
const channel = new BroadcastChannel("opensession");
const listeners = new Set();

/** Say that something below a path of the API has been changed from here. */
export function tellTabs(path) {
    channel.postMessage(path);
    listeners.forEach(act => act(path, true));
}

/** Call `act(path, here)` after each change, from here or from another tab; returns what ends it. */
export function onChange(act) {
    listeners.add(act);
    return () => listeners.delete(act);
}

channel.addEventListener("message", ({ data }) => listeners.forEach(act => act(data, false)));
