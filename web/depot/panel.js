// The Depot tab of the sidebar: the queue, what runs again, downloads, models in memory, and why each node ran.
import { section } from "./dom.js";
import { forceFields } from "./force_menu.js";
import { memorySection } from "./memory_section.js";
import { queueSection } from "./queue.js";
import { reasonsSection } from "./reasons.js";
import { TEXT } from "./text.js";
import { transfersSection } from "./transfers.js";

export const TAB = "comfyui-depot";
let close = () => {};

function forceSection() {
    const { whole, body } = section(TEXT.force.title, "force");
    const fields = forceFields();
    body.append(fields.whole);
    return { whole, close: fields.close };
}

/** The tab, as the page's sidebar wants it. */
export const sidebarTab = {
    id: TAB,
    icon: "pi pi-database",
    title: TEXT.panel,
    tooltip: TEXT.panelTooltip,
    type: "custom",
    render(container) {
        close();
        const sections = [queueSection(), forceSection(), transfersSection(), memorySection(), reasonsSection()];
        const panel = document.createElement("div");
        panel.className = "depot depot-panel";
        const heading = document.createElement("h2");
        heading.textContent = TEXT.panel;
        panel.append(heading, ...sections.map(({ whole }) => whole));
        container.style.height = "100%"; // the panel scrolls, not what the page has around it
        container.replaceChildren(panel);
        close = () => {
            for (const one of sections) one.close();
            close = () => {};
        };
    },
    destroy: () => close(),
};
