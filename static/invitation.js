// invitation.js - what a link brings behind its #: a set-up token, an invitation or a key

const KINDS = ["setup", "invite", "key"];
let brought = {};

/** Take #setup=…, #invite=… or #key=… out of the address, where it must not stay; true if there was one. */
export function takeInvitation() {
    const values = new URLSearchParams(location.hash.slice(1));
    const kind = KINDS.find(name => values.has(name));
    if (!kind) return false;
    brought = { [kind]: values.get(kind) };
    history.replaceState({}, "", "/login");
    return true;
}

export const invitation = () => brought;

export function forgetInvitation() {
    brought = {};
}
