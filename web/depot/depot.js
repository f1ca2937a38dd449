// The depot's part of the web page: a standard extension, which calls what the page offers to extensions.
import { app } from "/scripts/app.js";
import { offerDownloads } from "./bridge.js";
import { hookQueueing, runAgain, runNodeAgain } from "./force.js";
import { addForceButton } from "./force_menu.js";
import { explainModels } from "./memory_section.js";
import { sidebarTab, TAB } from "./panel.js";
import { followQueue } from "./queue.js";
import { explain } from "./reasons.js";
import { TEXT } from "./text.js";
import { followTransfers } from "./transfers.js";

const T = TEXT.commands;
const RUN_AGAIN = ["outputs", "everything", "selected"];

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("depot.css", import.meta.url).href;
document.head.append(style);

const commands = RUN_AGAIN.map((choice) => ({
    id: `Depot.RunAgain.${choice}`,
    label: T[choice],
    icon: "pi pi-refresh",
    function: () => runAgain(choice),
}));

app.registerExtension({
    name: "comfyui.depot",
    commands,
    menuCommands: [{ path: ["Depot"], commands: [...commands.map(({ id }) => id), `Workspace.ToggleSidebarTab.${TAB}`] }],
    keybindings: [
        { combo: { alt: true, key: "Enter" }, commandId: "Depot.RunAgain.outputs" },
        { combo: { alt: true, shift: true, key: "Enter" }, commandId: "Depot.RunAgain.everything" },
    ],
    init() {
        followQueue();
        followTransfers();
        offerDownloads();
        hookQueueing();
    },
    setup() {
        app.extensionManager.registerSidebarTab(sidebarTab);
        addForceButton();
    },
    getNodeMenuItems(node) {
        return [
            null,
            { content: TEXT.reasons.menuItem, callback: () => explain(node) },
            { content: TEXT.memory.menuItem, callback: () => explainModels(node) },
            { content: TEXT.reasons.menuForce, callback: () => runNodeAgain(node) },
        ];
    },
});
