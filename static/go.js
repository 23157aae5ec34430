// go.js - moving between addresses of ours; the router listens
let draw = null;

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
