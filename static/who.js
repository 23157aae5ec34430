// who.js - who is signed in, and the teams they belong to
import { get, post } from "./api.js";

let person = null;
let ownTeams = null;

export const user = () => person;

/** Ask the server who we are; null for a visitor. */
export async function loadUser() {
    ownTeams = null;
    person = await get("/api/auth/me").catch(error => {
        if (error.status === 401) return null;
        throw error;
    });
    return person;
}

export async function signIn(apiKey) {
    await post("/api/auth/login", { api_key: apiKey });
    tellOtherTabs();
    return loadUser();
}

export async function signOut() {
    await post("/api/auth/logout");
    tellOtherTabs();
    person = ownTeams = null;
}

/** What the other tabs show is somebody else's from now on. */
const tellOtherTabs = () => localStorage.setItem("changed", Date.now());

addEventListener("storage", event => event.key === "changed" && location.reload());

/** The teams of the person, asked for once. */
export async function teams() {
    if (!person) return [];
    ownTeams ??= get("/api/teams").then(answer => answer.teams);
    return ownTeams;
}

export function forgetTeams() {
    ownTeams = null;
}
