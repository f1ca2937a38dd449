// The queue: how many prompts wait or run, and whether it is paused.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { element, icon, section } from "./dom.js";
import { TEXT } from "./text.js";

const T = TEXT.queue;
let state = { remaining: 0, paused: false, canPause: true };
const views = new Set();

function take(status) {
    const info = status?.exec_info;
    if (!info) return; // the line to the server is down
    state = { remaining: info.queue_remaining ?? 0, paused: info.paused === true, canPause: "paused" in info };
    for (const show of views) show();
}

/** Follow the `status` events of the server. */
export function followQueue() {
    api.addEventListener("status", ({ detail }) => take(detail));
}

async function setPaused(paused) {
    const answer = await api.fetchApi(`/depot/queue/${paused ? "pause" : "resume"}`, { method: "POST" });
    if (answer.ok) return; // a status event tells everybody
    const detail = `${answer.status} ${answer.statusText}`;
    app.extensionManager.toast.add({ severity: "error", summary: T.failed[paused ? "pause" : "resume"], detail, life: 8000 });
}

/** The section of the panel. */
export function queueSection() {
    const { whole, body } = section(T.title, "queue");
    const count = element("span", { class: "depot-queue-count", role: "status" });
    const word = element("span");
    const sign = icon("pause");
    const button = element("button", {
        type: "button", class: "depot-button", title: T.hint, onclick: () => setPaused(!state.paused),
    }, sign, word);
    body.append(element("div", { class: "depot-queue-line" }, count, button));
    const show = () => {
        button.hidden = !state.canPause; // upstream's queue cannot
        count.textContent = state.paused ? T.pausedCount(state.remaining) : T.count(state.remaining);
        word.textContent = state.paused ? T.resume : T.pause;
        sign.className = `pi pi-${state.paused ? "play" : "pause"}`;
        body.classList.toggle("depot-paused", state.paused);
    };
    views.add(show);
    show();
    api.fetchApi("/prompt").then(async (answer) => take(await answer.json()))
        .catch((error) => console.warn("The length of the queue cannot be read:", error));
    return { whole, close: () => views.delete(show) };
}
