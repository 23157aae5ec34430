// ahead.js - asks at once for what the page of a session needs, where otherwise each import waits for the one before
if (location.pathname.startsWith("/session/")) {
    const ask = values => document.head.append(Object.assign(document.createElement("link"), values));
    const id = location.pathname.split("/")[2];
    for (const part of ["", "/map", "/outline"]) ask({ rel: "preload", as: "fetch", crossOrigin: "anonymous", href: `/api/sessions/${id}${part}` });
    const modules = "session acts blocks calls code copying diff events files filters find folds following format head kinds languages map markdown marks "
        + "outline pages plan reader steps store tools touched words vendor/marked.esm vendor/purify.min";
    for (const name of modules.split(" ")) ask({ rel: "modulepreload", href: `/${name}.js` });
}
