// What runs again: the user's choice, and how it gets into POST /prompt.
//
// The choice stays until the user takes it back, also when the page is loaded again; another tab has its own.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { selectedIds } from "./canvas.js";
import { TEXT } from "./text.js";

export const CHOICES = Object.keys(TEXT.force.choices);
export const CACHES = Object.keys(TEXT.force.caches);
const KEPT_AS = "comfyui.depot.force";
const PAUSE_MS = 50;
const LONGEST_WAIT_MS = 10_000;

function kept() {
    try {
        const { choice, cache } = JSON.parse(sessionStorage.getItem(KEPT_AS)) ?? {};
        return {
            choice: CHOICES.includes(choice) ? choice : "usual",
            cache: CACHES.includes(cache) ? cache : "read",
        };
    } catch {
        return { choice: "usual", cache: "read" }; // no storage, or not ours
    }
}

/** The user's choice; sends "change". */
class Force extends EventTarget {
    constructor() {
        super();
        Object.assign(this, kept());
        this.problem = null;
    }

    set(change) {
        Object.assign(this, change);
        try {
            sessionStorage.setItem(KEPT_AS, JSON.stringify({ choice: this.choice, cache: this.cache }));
        } catch {
            // it then lives as long as the page
        }
        this.dispatchEvent(new Event("change"));
    }

    get isDefault() {
        return this.choice === "usual" && this.cache === "read";
    }
}

export const force = new Force();

let once = null; // the fields of the next prompt only: (prompt ids) -> fields
let isSeen = false; // whether the prompt that is being queued came by here

function note(severity, detail) {
    app.extensionManager.toast.add({ severity, summary: TEXT.force.noteTitle, detail, life: 8000 });
}

function fieldsOfChoice(choice, promptIds) {
    if (choice === "outputs") return { force: "outputs" };
    if (choice === "everything") return { force: true };
    if (choice !== "selected") return {};
    const ids = selectedIds(promptIds);
    if (ids.length) return { force: ids };
    note("warn", TEXT.force.nothingSelected);
    return {};
}

function fieldsFor(promptIds) {
    if (once) {
        const make = once;
        once = null;
        return make(promptIds);
    }
    const fields = fieldsOfChoice(force.choice, promptIds);
    return force.cache === "read" ? fields : { ...fields, cache: force.cache };
}

/** The options of a request, with our fields if it queues a prompt; fields that are there already stay. */
function withFields(route, options) {
    if (route !== "/prompt" || options?.method !== "POST") return options;
    isSeen = true;
    const body = JSON.parse(options.body);
    const fields = fieldsFor(Object.keys(body.prompt));
    return Object.keys(fields).length ? { ...options, body: JSON.stringify({ ...fields, ...body }) } : options;
}

function report(problem) {
    force.problem = problem;
    force.dispatchEvent(new Event("change"));
    note("warn", problem);
}

/** Let every prompt that the page queues pass by here. Whatever goes wrong here, the prompt is queued. */
export function hookQueueing() {
    const fetchApi = api.fetchApi;
    if (typeof fetchApi !== "function") {
        report(TEXT.force.notSent);
        return;
    }
    api.fetchApi = function (route, options, ...rest) {
        let changed = options;
        try {
            changed = withFields(route, options);
        } catch (error) {
            console.warn("Depot could not add force and cache to the prompt:", error);
            report(TEXT.force.notSent);
        }
        return fetchApi.call(this, route, changed, ...rest);
    };
    api.addEventListener("promptQueueing", () => {
        isSeen = false;
    });
    api.addEventListener("promptQueued", () => {
        if (!isSeen && !(force.isDefault && once === null)) report(TEXT.force.notSent);
        isSeen = false;
        once = null;
    });
}

/** Queue the open workflow once with these fields; the choice stays as it is. */
export async function runOnce(makeFields) {
    for (let waited = 0; app.processingQueue && waited < LONGEST_WAIT_MS; waited += PAUSE_MS) {
        await new Promise((done) => setTimeout(done, PAUSE_MS)); // another prompt is on its way to the server
    }
    once = makeFields;
    try {
        await app.queuePrompt(0, 1);
    } finally {
        once = null;
    }
}

/** Queue once with another choice ("outputs", "everything", "selected"). */
export function runAgain(choice) {
    return runOnce((promptIds) => fieldsOfChoice(choice, promptIds));
}

/** Queue once and have this node of the canvas run again. */
export function runNodeAgain(node) {
    app.canvas.selectNode(node);
    return runAgain("selected");
}
