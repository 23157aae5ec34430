// sight.js - which rows of a list of pages are on the screen

export const BAR = 56;                  // pixels that the bar on top covers

/** The first row in sight. */
export function firstInSight(list) {
    for (const section of list.children) {
        if (section.getBoundingClientRect().bottom <= BAR) continue;
        for (const row of section.children) if (row.dataset.at && row.getBoundingClientRect().bottom > BAR) return row;
    }
    return null;
}

/** The last row in sight. */
export function lastInSight(list) {
    for (let section = list.lastElementChild; section; section = section.previousElementSibling) {
        if (section.getBoundingClientRect().top >= innerHeight) continue;
        for (let row = section.lastElementChild; row; row = row.previousElementSibling) {
            const { top, height } = row.getBoundingClientRect();
            if (row.dataset.at && height && top < innerHeight) return row;
        }
    }
    return null;
}

/** Whether an element is on the screen or closer to it than a number of pixels. */
export function isWithin(node, pixels) {
    const { top, bottom } = node.getBoundingClientRect();
    return bottom > -pixels && top < innerHeight + pixels;
}

/** The pages farther than a number of pixels, from the first one down or from the last one up; two always stay. */
export function farAway(list, pixels, downwards) {
    const far = [];
    let section = downwards ? list.firstElementChild : list.lastElementChild;
    while (section && far.length < list.children.length - 2 && !isWithin(section, pixels)) {
        far.push(section);
        section = downwards ? section.nextElementSibling : section.previousElementSibling;
    }
    return far;
}

/** Change the pages without moving what the reader looks at; below them all that is the last page. */
export function keepPlace(list, change) {
    const anchor = firstInSight(list) ?? list.lastElementChild;
    const before = anchor?.getBoundingClientRect().top;
    change();
    if (anchor?.isConnected) scrollBy({ top: anchor.getBoundingClientRect().top - before, behavior: "instant" });
}

/** The next frame; at once where the page is not looked at, as there are no frames then. */
export const nextFrame = () => new Promise(resolve => { if (document.hidden) setTimeout(resolve); else requestAnimationFrame(resolve); });
