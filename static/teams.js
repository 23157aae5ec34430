// teams.js - the teams of a person, and a new one
import { post } from "./api.js";
import { go } from "./go.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { onSubmit, title } from "./parts.js";
import { forgetTeams, teams, user } from "./who.js";

export async function show(view) {
    if (!user()) throw Object.assign(new Error(), { status: 401 });
    title(t("nav.teams"));
    forgetTeams();
    const list = await teams();
    view.classList.add("narrow");
    view.innerHTML = html`
        <h1>${t("nav.teams")}</h1>
        ${list.length === 0 && html`<p class="quiet">${t("teams.none")}</p>`}
        <ul class="lines">${list.map(line)}</ul>
        <form class="line">
            <h2>${t("teams.new")}</h2>
            <label>${t("name")} <input name="name" required maxlength="128" autocomplete="off"></label>
            <label>${t("description")} <input name="description" maxlength="500" autocomplete="off"></label>
            <button>${t("create")}</button>
        </form>`;
    onSubmit(view.querySelector("form"), async ({ name, description }) => {
        const team = await post("/api/teams", { name, description: description || null });
        forgetTeams();
        await go(`/teams/${team.id}`);
    });
}

const line = team => html`
    <li><div><a href="/teams/${team.id}" data-row data-open>${team.name}</a> ${team.is_public && html`<span class="tag">${t("public")}</span>`}
        <p class="sub">${team.description}</p></div><span class="sub">${team.role && t(`role.${team.role}`)}</span></li>`;
