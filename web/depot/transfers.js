// Downloads: notes when one starts and ends, and a list with progress in the panel.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { duration, element, icon, section, size } from "./dom.js";
import { TEXT } from "./text.js";

const T = TEXT.transfers;
const NOTES = {
    downloading: { severity: "info", life: 6000 },
    done: { severity: "success", life: 4000 },
    failed: { severity: "error" },
    cancelled: { severity: "warn", life: 4000 },
};
const ENDED = new Set(["done", "failed", "cancelled"]);
const ENDED_KEPT = 5;
const transfers = new Map(); // id -> its last state
const noted = new Map(); // id -> the state that was noted last
const views = new Set();

function noteOf(transfer) {
    if (transfer.error) return transfer.error;
    const total = transfer.bytes_total === null ? "" : `, ${size(transfer.bytes_total)}`;
    return `${transfer.folder}/${transfer.name}${total}${transfer.source ? ` ${T.from(transfer.source)}` : ""}`;
}

function tell(transfer) {
    const note = NOTES[transfer.state];
    if (!note || noted.get(transfer.id) === transfer.state) return;
    noted.set(transfer.id, transfer.state);
    app.extensionManager.toast.add({ ...note, summary: T.notes[transfer.state], detail: noteOf(transfer) });
}

function keep(transfer) {
    transfers.set(transfer.id, transfer);
    const ended = [...transfers.values()].filter(({ state }) => ENDED.has(state));
    for (const { id } of ended.slice(0, -ENDED_KEPT)) transfers.delete(id);
    for (const show of views) show();
}

/** Follow the `depot` events of the server. */
export function followTransfers() {
    api.addEventListener("depot", ({ detail }) => {
        if (detail?.kind !== "transfer") return;
        tell(detail);
        keep(detail);
    });
}

/** The download of a model that is under way. */
export function transferOf(folder, name) {
    return [...transfers.values()].find((one) => one.folder === folder && one.name === name && !ENDED.has(one.state));
}

async function cancel(transfer) {
    const answer = await api.fetchApi(`/depot/transfers/${encodeURIComponent(transfer.id)}`, { method: "DELETE" });
    if (answer.ok) return;
    app.extensionManager.toast.add({
        severity: "warn", summary: T.title, detail: T.cancelFailed(transfer.name), life: 6000,
    });
}

function facts(transfer) {
    if (transfer.state === "failed") return transfer.error ?? T.states.failed;
    const parts = [T.states[transfer.state] ?? transfer.state];
    const total = transfer.bytes_total === null ? null : size(transfer.bytes_total);
    parts.push(T.progress(size(transfer.bytes_done), total));
    if (transfer.state === "downloading") {
        if (transfer.bytes_per_second) parts.push(T.rate(size(transfer.bytes_per_second)));
        if (typeof transfer.seconds_left === "number") parts.push(T.left(duration(transfer.seconds_left)));
    }
    return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · "); // lines break between facts
}

/** A row that is changed in place, so that a click does not fall between two states. */
class Row {
    constructor(transfer) {
        const name = `${transfer.folder}/${transfer.name}`;
        this.bar = element("progress", { class: "depot-bar", "aria-label": name });
        this.stop = element("button", {
            type: "button", class: "depot-icon-button", "aria-label": T.cancel(name), title: T.cancel(name),
            onclick: () => cancel(transfer),
        }, icon("times"));
        this.facts = element("div", { class: "depot-quiet" });
        this.whole = element("li", {},
            element("div", { class: "depot-transfer-head" },
                element("span", { class: "depot-transfer-name", title: name }, transfer.name), this.stop),
            this.bar, this.facts);
    }

    show(transfer) {
        this.whole.className = `depot-transfer depot-is-${transfer.state}`;
        this.bar.hidden = this.stop.hidden = ENDED.has(transfer.state);
        if (transfer.bytes_total) {
            this.bar.max = transfer.bytes_total;
            this.bar.value = transfer.bytes_done;
        } else {
            this.bar.removeAttribute("value"); // it moves, since nobody knows how long it takes
        }
        this.facts.textContent = facts(transfer);
    }
}

/** The section of the panel. */
export function transfersSection() {
    const { whole, body } = section(T.title, "transfers");
    const empty = element("p", { class: "depot-quiet" }, T.empty);
    const list = element("ul", { class: "depot-list" });
    body.append(empty, list);
    const rows = new Map(); // transfer id -> its row
    const show = () => {
        for (const [id, row] of rows) {
            if (transfers.has(id)) continue;
            row.whole.remove();
            rows.delete(id);
        }
        for (const transfer of transfers.values()) {
            if (!rows.has(transfer.id)) {
                rows.set(transfer.id, new Row(transfer));
                list.prepend(rows.get(transfer.id).whole);
            }
            rows.get(transfer.id).show(transfer);
        }
        empty.hidden = transfers.size > 0;
    };
    views.add(show);
    show();
    api.fetchApi("/depot/transfers").then(async (answer) => {
        const listed = answer.ok ? (await answer.json()).transfers : [];
        for (const transfer of listed) if (!transfers.has(transfer.id)) keep(transfer);
    }).catch((error) => console.warn("Depot's transfers cannot be read:", error));
    return { whole, close: () => views.delete(show) };
}
