// Why each node of the last runs ran: from the history, newest run first.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { nodesOnTheWay, showNode } from "./canvas.js";
import { element, icon, section } from "./dom.js";
import { TEXT } from "./text.js";

const T = TEXT.reasons;
const RUNS_SHOWN = 10;
const ROWS_SHOWN = 200;
const MS_BETWEEN_READS = 500;
const ENDED = "completed,failed,cancelled";

/** A reason in words. `titleOf` names a node by its id. */
export function inWords(reason, titleOf) {
    if (reason.merged_with) return T.merged;
    if (reason.reason === "dropped") return T.drops[reason.why] ?? T.words.dropped;
    if (reason.reason !== "changed") return T.words[reason.reason] ?? reason.reason;
    const parts = [];
    if (reason.inputs?.length) parts.push(T.inputs(reason.inputs));
    if (reason.is_changed) parts.push(T.isChanged);
    if (reason.models?.length) parts.push(T.models(reason.models));
    if (reason.upstream?.length) parts.push(T.upstream(reason.upstream.map(titleOf)));
    return parts.join("; ") || T.words.changed;
}

function titlesIn(entry) {
    const prompt = entry.prompt?.[2] ?? {};
    return (id) => {
        const known = prompt[id] ?? prompt[id.split(".")[0]]; // nodes of an expansion bear their parent's name
        return known?._meta?.title ?? known?.class_type ?? id;
    };
}

/** What the panel shows of a history entry. */
function runFrom(id, entry) {
    const messages = new Map(entry.status?.messages ?? []);
    const state = messages.has("execution_interrupted") ? "interrupted" : entry.status?.status_str;
    const rows = Object.entries(entry.reasons ?? {}).map(([nodeId, reason]) => ({ nodeId, reason }));
    const started = messages.get("execution_start")?.timestamp;
    const ran = rows.filter((row) => !isCached(row)).length;
    return { id, rows, state, started, ran, titleOf: titlesIn(entry), hasReasons: "reasons" in entry };
}

function isCached({ reason }) {
    return reason.reason === "cached";
}

/** The last runs, newest first, kept up to date while somebody listens. */
class Runs extends EventTarget {
    list = [];
    problem = null;
    #listeners = 0;
    #isReading = false;
    #isOutdated = false;
    #isSilent = false;

    /** Whether this server says why nodes ran; upstream's does not. */
    get areKnown() {
        return !this.#isSilent && (this.list.length === 0 || this.list.some(({ hasReasons }) => hasReasons));
    }

    listen(show) {
        this.addEventListener("change", show);
        if (this.#listeners++ === 0) api.addEventListener("status", this.#update);
        this.#update();
    }

    unlisten(show) {
        this.removeEventListener("change", show);
        if (--this.#listeners === 0) api.removeEventListener("status", this.#update);
    }

    #update = async () => {
        this.#isOutdated = true;
        if (this.#isReading) return;
        this.#isReading = true;
        while (this.#isOutdated) {
            this.#isOutdated = false;
            await this.read();
            await new Promise((done) => setTimeout(done, MS_BETWEEN_READS));
        }
        this.#isReading = false;
    };

    async read() {
        try {
            const query = `status=${ENDED}&sort_by=created_at&sort_order=desc&limit=${RUNS_SHOWN}`;
            const { jobs } = await this.#get(`/jobs?${query}`);
            const known = new Map(this.list.map((run) => [run.id, run]));
            const runs = await Promise.all(jobs.map(({ id }) => known.get(id) ?? this.#readRun(id)));
            this.list = runs.filter(Boolean);
            this.problem = null;
        } catch (error) {
            this.#isSilent = error.status === 404; // upstream's server of before 2026 lists no runs
            this.problem = this.#isSilent ? null : T.failed(error.message);
        }
        this.dispatchEvent(new Event("change"));
    }

    async #readRun(id) {
        const entry = (await this.#get(`/history/${encodeURIComponent(id)}`))[id];
        return entry ? runFrom(id, entry) : null; // gone since it was listed
    }

    async #get(path) {
        const answer = await api.fetchApi(path);
        if (!answer.ok) {
            const text = `${path.split("?")[0]}: ${answer.status} ${answer.statusText}`;
            throw Object.assign(new Error(text), { status: answer.status });
        }
        return answer.json();
    }
}

export const runs = new Runs();

function warn(detail) {
    app.extensionManager.toast.add({ severity: "warn", summary: T.title, detail, life: 6000 });
}

function goTo(nodeId, title) {
    if (!showNode(nodeId)) warn(T.notOnCanvas(title));
}

function reasonRow({ nodeId, reason }, titleOf) {
    const title = titleOf(nodeId);
    const button = element("button", {
        type: "button", class: "depot-row", title: T.goTo(title), "data-node": nodeId, onclick: () => goTo(nodeId, title),
    },
    element("span", { class: "depot-row-head" },
        element("span", { class: "depot-row-title" }, title),
        element("span", { class: "depot-row-id" }, `#${nodeId}`),
        element("span", { class: `depot-chip depot-chip-${reason.reason.replaceAll(" ", "-")}` },
            T.chips[reason.reason] ?? reason.reason)),
    isCached({ reason }) ? null : element("span", { class: "depot-quiet" }, inWords(reason, titleOf)));
    return element("li", {}, button);
}

function rowsOf(run) {
    if (!run.rows.length) return element("p", { class: "depot-quiet" }, T.noReasons);
    const ordered = [...run.rows.filter((row) => !isCached(row)), ...run.rows.filter(isCached)];
    const list = element("ul", { class: "depot-list" },
        ...ordered.slice(0, ROWS_SHOWN).map((row) => reasonRow(row, run.titleOf)));
    if (ordered.length > ROWS_SHOWN) {
        list.append(element("li", { class: "depot-quiet" }, T.more(ordered.length - ROWS_SHOWN)));
    }
    return list;
}

function runDetails(run, isOpen) {
    const time = run.started ? new Date(run.started).toLocaleTimeString() : "";
    const counts = `${T.ran(run.ran)}, ${T.cachedCount(run.rows.length - run.ran)}`;
    const isFine = run.state === "success";
    const whole = element("details", { class: "depot-run", "data-run": run.id, open: isOpen },
        element("summary", { title: run.id },
            icon(isFine ? "check-circle" : "exclamation-circle"),
            element("span", { class: "depot-run-time" }, time),
            element("span", { class: "depot-quiet" }, isFine ? counts : `${T.states[run.state] ?? run.state}, ${counts}`)));
    whole.classList.toggle("depot-run-bad", !isFine);
    const fill = () => {
        if (whole.open && whole.children.length === 1) whole.append(rowsOf(run)); // long lists are made when wanted
    };
    whole.addEventListener("toggle", fill);
    fill();
    return whole;
}

/** The section of the panel. */
export function reasonsSection() {
    const { whole, body } = section(T.title, "reasons");
    const problem = element("p", { class: "depot-note depot-problem", role: "status" });
    const empty = element("p", { class: "depot-quiet" }, T.empty);
    const list = element("div", { class: "depot-runs" });
    body.append(problem, empty, list);
    const shown = new Map(); // run id -> its element; what the user has opened stays open
    let newest = null;
    const show = () => {
        whole.hidden = !runs.areKnown;
        problem.hidden = !runs.problem;
        problem.textContent = runs.problem ?? "";
        empty.hidden = runs.list.length > 0 || Boolean(runs.problem);
        if (runs.list[0] && runs.list[0].id !== newest) {
            if (newest) shown.get(newest)?.removeAttribute("open");
            newest = runs.list[0].id;
        }
        const wanted = runs.list.map((run) => {
            if (!shown.has(run.id)) shown.set(run.id, runDetails(run, run.id === newest));
            return shown.get(run.id);
        });
        for (const id of shown.keys()) if (!wanted.includes(shown.get(id))) shown.delete(id);
        if (wanted.some((one, place) => list.children[place] !== one) || list.children.length !== wanted.length) {
            list.replaceChildren(...wanted);
        }
    };
    runs.listen(show);
    return { whole, close: () => runs.unlisten(show) };
}

/** Say in a note why a node of the canvas ran last. */
export async function explain(node) {
    await runs.read();
    for (const run of runs.list) {
        const row = run.rows.find(({ nodeId }) => nodesOnTheWay(nodeId).at(-1) === node);
        if (!row) continue;
        app.extensionManager.toast.add({
            severity: "info", summary: node.title, detail: inWords(row.reason, run.titleOf), life: 8000,
        });
        return;
    }
    warn(runs.areKnown ? T.notRunYet(node.title) : T.notKnown);
}
