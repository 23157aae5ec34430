// styled.js - a view's own style sheet: there already where the view was the first, else fetched with it

/** Resolves when the page has a style sheet of ours. */
export function styled(name) {
    const { href } = new URL(name, import.meta.url);
    if ([...document.styleSheets].some(sheet => sheet.href === href)) return null;
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
    return new Promise(resolve => {
        link.onload = link.onerror = resolve;
        document.head.append(link);
    });
}
