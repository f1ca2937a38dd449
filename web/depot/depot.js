// Tells in the web page what the depot does: a note when a model starts to come, is there, or could not be had.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

const NOTES = {
    downloading: { severity: "info", summary: "Fetching a model", life: 6000 },
    done: { severity: "success", summary: "Model is here", life: 4000 },
    failed: { severity: "error", summary: "Model could not be fetched" },
    cancelled: { severity: "warn", summary: "Fetching was cancelled", life: 4000 },
};
const noted = new Map(); // transfer id -> its last noted state

function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    const step = Math.min(Math.max(Math.floor(Math.log10(bytes || 1) / 3), 0), units.length - 1);
    return `${(bytes / 1000 ** step).toFixed(step ? 1 : 0)} ${units[step]}`;
}

function detail(transfer) {
    const name = `${transfer.folder}/${transfer.name}`;
    if (transfer.error) return transfer.error;
    const total = transfer.bytes_total === null ? "" : `, ${size(transfer.bytes_total)}`;
    return `${name}${total}${transfer.source ? ` from ${transfer.source}` : ""}`;
}

function onDepotEvent({ detail: transfer }) {
    const note = transfer.kind === "transfer" && NOTES[transfer.state];
    if (!note || noted.get(transfer.id) === transfer.state) return;
    noted.set(transfer.id, transfer.state);
    app.extensionManager.toast.add({ ...note, detail: detail(transfer) });
}

app.registerExtension({
    name: "comfyui.depot",
    init() {
        api.addEventListener("depot", onDepotEvent);
    },
});
