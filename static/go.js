// go.js - moving between addresses of ours; the router listens
let draw = null;
let drawn = null;

const address = () => location.pathname + location.search;

export function onMove(show) {
    draw = show;
}

/** Go to an address and draw its view. */
export function go(address, { replace = false } = {}) {
    history.replaceState({ ...history.state, scroll: scrollY }, "");
    history[replace ? "replaceState" : "pushState"]({}, "", address);
    return draw();
}

/** Draw the present view anew. */
export const again = () => draw();

/** The router has drawn the present address. */
export const noteDrawn = () => { drawn = address(); };

export const isDrawn = () => drawn === address();

/** Change a parameter of the present address; the view has drawn it already. */
export function rename(name, value) {
    const url = new URL(location.href);
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
    history.replaceState(history.state, "", url.pathname + url.search + url.hash);
    noteDrawn();
}

/** Remember where in the view the reader is, for when they come back. */
export const remember = place => history.replaceState({ ...history.state, place }, "");
