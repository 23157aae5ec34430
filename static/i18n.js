// i18n.js - the page in the person's language: English or Korean, which looks.js has chosen

export const LANGUAGES = { en: "English", ko: "한국어" };

let chosen = document.documentElement.lang;
let texts = await textsOf(chosen);

export const language = () => chosen;

/** The text of a key with its {values}; "{n} file|{n} files" picks by the plural rule for n. */
export function t(key, values = {}) {
    const text = texts[key] ?? key;
    const forms = "n" in values ? text.split("|") : [text];
    const form = forms.length > 1 && formatter(Intl.PluralRules, {}).select(values.n) !== "one" ? forms[1] : forms[0];
    return form.replace(/\{(\w+)\}/g, (whole, name) => shown(values[name]));
}

export const has = key => key in texts;

/** What went wrong as {message, detail}: the server's sentence, which is English; elsewhere ours for the status and field, with the server's as detail. */
export function failure(status, said, field) {
    const key = [`error.${status}.${field}`, `error.${status}`].find(has);
    const own = key ? t(key) : t("error.status", { status });
    if (!said || chosen !== "en") return { message: own, detail: said };
    return { message: said[0].toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".") };
}

/** Choose a language for good; the page is drawn anew by the caller. */
export async function choose(code) {
    texts = await textsOf(code);
    chosen = code;
    localStorage.setItem("language", code);
    document.documentElement.lang = code;
}

const shown = value => typeof value === "number" ? formatter(Intl.NumberFormat, {}).format(value) : value;

const formatters = new Map();

/** A formatter of a class of Intl, for the language and with these options: kept, as making one takes longer than using it a hundred times. */
export function formatter(kind, options) {
    const key = `${kind.name} ${chosen} ${JSON.stringify(options)}`;
    if (!formatters.has(key)) formatters.set(key, new kind(chosen, options));
    return formatters.get(key);
}

async function textsOf(code) {
    return (await import(`./texts/${code}.js`)).TEXTS;
}
