// following.js - a session that is still running: asks for news, says how many there are
const OFTEN = 3000, SELDOM = 30000;     // milliseconds
const RUNNING = 5 * 60000, RECENT = 24 * 3600000;

export const isRunning = session => Date.now() - new Date(session.updated_at ?? session.created_at) < RUNNING;

/** Call `ask()` again and again while the page is looked at: often while the session runs, seldom for a day, then no more. */
export function keepAsking(session, ask) {
    let timer = null, ended = false;

    function plan() {
        const age = Date.now() - new Date(session().updated_at ?? session().created_at);
        clearTimeout(timer);
        if (!ended && age < RECENT) timer = setTimeout(run, age < RUNNING ? OFTEN : SELDOM);
    }

    async function run() {
        // What fails now is asked for again later; the page is readable as it is.
        if (!document.hidden) await ask().catch(() => null);
        plan();
    }

    const look = () => !document.hidden && run();
    document.addEventListener("visibilitychange", look);
    plan();
    return () => {
        ended = true;
        clearTimeout(timer);
        document.removeEventListener("visibilitychange", look);
    };
}
