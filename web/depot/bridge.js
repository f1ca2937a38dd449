// "Download" in the page's list of missing models: the server fetches them, not the browser. The page looks for
// `__comfyDesktop2`, by which a desktop program offers this, each time that the button is pressed.
import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { TEXT } from "./text.js";

const T = TEXT.bridge;
const MILLISECONDS_BETWEEN_ARRIVALS = 300; // those that come together are one refresh
let timer;

function* modelsOf(workflow) {
    yield* workflow.models ?? [];
    for (const graph of [workflow, ...(workflow.definitions?.subgraphs ?? [])]) {
        for (const node of graph.nodes ?? []) yield* node.properties?.models ?? [];
    }
}

/** What the open workflow says of a model's bytes: the page passes on only where it is and what it is called. */
function digestOf(url, name) {
    const models = app.extensionManager.workflow?.activeWorkflow?.activeState?.models;
    const open = { ...(app.rootGraph ?? app.graph).serialize(), ...(models && { models }) };
    for (const model of modelsOf(open)) {
        if (model?.url === url && model.name === name && model.hash) return { hash: model.hash, hash_type: model.hash_type };
    }
    return {};
}

function sayWhyNot(name, why) {
    app.extensionManager.toast.add({ severity: "error", summary: T.refused(name), detail: why });
    return false;
}

async function reasonOf(answer) {
    const body = await answer.json().catch(() => null);
    return body?.error?.message ?? `${answer.status} ${answer.statusText}`;
}

/** Let the server fetch a model into the folder of its type; whether it does. `asset_download` events tell the rest. */
async function downloadModel(url, name, directory) {
    try {
        const answer = await api.fetchApi("/assets/download", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({
                source_url: url,
                tags: ["models", directory],
                user_metadata: { filename: name, model_type: directory, ...digestOf(url, name) },
            }),
        });
        return answer.ok || sayWhyNot(name, await reasonOf(answer));
    } catch (error) {
        return sayWhyNot(name, String(error));
    }
}

/** Read the lists of the nodes again, and with them what is missing. */
async function refresh() {
    try {
        await (app.refreshMissingModels ? app.refreshMissingModels() : app.refreshComboInNodes());
        app.canvas?.setDirty(true, true); // the marks of nodes are drawn when something moves
    } catch (error) {
        console.warn("The lists of models cannot be read again:", error);
    }
}

/** Offer downloads to the page, unless a desktop program around it does already. */
export function offerDownloads() {
    // Nothing more than the page's button needs: with `Telemetry`, `Auth` and the like it would take us for that program.
    window.__comfyDesktop2 ??= { isRemote: () => false, downloadModel };
    api.addEventListener("asset_download", ({ detail }) => {
        if (detail?.status !== "completed") return;
        clearTimeout(timer);
        timer = setTimeout(refresh, MILLISECONDS_BETWEEN_ARRIVALS);
    });
}
