import { app } from "/scripts/app.js";

app.registerExtension({
    name: "live.pack",
    async setup() {
        window.livePackIsLoaded = true;
    },
});
