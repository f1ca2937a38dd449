// What is in memory, and what can be done about it. Read while somebody looks, at most once per second.
import { api } from "/scripts/api.js";
import { TEXT } from "./text.js";

const MS_BETWEEN_READS = 1000;
const MS_BETWEEN_LOOKS = 5000; // what other clients, the command line and time do tells no event
const EVENTS = ["status", "executing", "execution_success", "execution_error", "execution_interrupted"];

/** "checkpoints/sdxl/base.safetensors" as the routes take it. */
export function split(title) {
    const at = title.indexOf("/");
    return { folder: title.slice(0, at), name: title.slice(at + 1) };
}

async function said(answer) {
    const body = await answer.json().catch(() => null);
    if (answer.ok && body) return body;
    throw new Error(body?.error?.message ?? `${answer.status} ${answer.statusText}`);
}

/** `resident`, `dropped` and `pins` as `GET /depot/models` gives them; sends "change", and "progress" in between. */
class Memory extends EventTarget {
    resident = [];
    dropped = [];
    pins = { pins: [], groups: [], devices: [], warming: [], budget: null, pinned_bytes: 0, problem: null };
    #holding = new Map(); // "folder/name" -> the pins that hold it
    problem = null;
    wasRead = false;
    #told = new Map(); // "folder/name" -> its last event since the last answer
    #listeners = 0;
    #isReading = false;
    #isOutdated = false;
    #looks = null;

    listen(show) {
        this.addEventListener("change", show);
        if (this.#listeners++ === 0) {
            for (const event of EVENTS) api.addEventListener(event, this.update);
            api.addEventListener("depot", this.#take);
            this.#looks = setInterval(() => document.hidden || this.update(), MS_BETWEEN_LOOKS);
        }
        this.update();
    }

    unlisten(show) {
        this.removeEventListener("change", show);
        if (--this.#listeners > 0) return;
        for (const event of EVENTS) api.removeEventListener(event, this.update);
        api.removeEventListener("depot", this.#take);
        clearInterval(this.#looks);
    }

    /** Read soon. */
    update = async () => {
        this.#isOutdated = true;
        if (this.#isReading) return;
        this.#isReading = true;
        while (this.#isOutdated && this.#listeners > 0) {
            this.#isOutdated = false;
            await this.read();
            await new Promise((done) => setTimeout(done, MS_BETWEEN_READS));
        }
        this.#isReading = false;
    };

    /** How far a model is on its way: what the last event said, else what the list says. */
    stateOf(model) {
        return this.#told.get(`${model.folder}/${model.name}`) ?? model;
    }

    /** The pins that hold a model of one of these names. */
    holding(names) {
        return [...new Set(names.flatMap((name) => this.#holding.get(name) ?? []))];
    }

    pin(body) {
        return this.#ask("/depot/pin", body);
    }

    unpin(body) {
        return this.#ask("/depot/unpin", body);
    }

    warm(body) {
        return this.#ask("/depot/warm", body);
    }

    /** The groups with their models, and why one that is not active could not become it. */
    async groups() {
        return (await said(await api.fetchApi("/depot/groups"))).groups;
    }

    async #ask(path, body) {
        try {
            return await said(await this.#post(path, { tier: "memory", ...body }));
        } finally {
            this.update();
        }
    }

    #post(path, body) {
        return api.fetchApi(path, {
            method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
        });
    }

    #take = ({ detail }) => {
        if (detail?.kind === "memory") {
            this.#told.set(`${detail.folder}/${detail.name}`, detail);
            this.update();
        }
        this.dispatchEvent(new Event("progress")); // also of a download that a pin waits for
    };

    /** Read now. */
    async read() {
        try {
            this.#told.clear();
            const { resident, dropped, memory } = await said(await api.fetchApi("/depot/models?tier=memory"));
            Object.assign(this, { resident, dropped, pins: memory, problem: null });
            this.#holding.clear();
            for (const pin of memory.pins) for (const { folder, name } of pin.models) this.#hold(`${folder}/${name}`, pin);
        } catch (error) {
            this.problem = TEXT.memory.failed(error.message);
        }
        this.wasRead = true;
        this.dispatchEvent(new Event("change"));
    }

    #hold(title, pin) {
        this.#holding.set(title, [...(this.#holding.get(title) ?? []), pin]);
    }
}

export const memory = new Memory();
