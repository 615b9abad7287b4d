// The panel of model files: what the systems of this pack read, what of it is missing, where it belongs, and its licence.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { published } from "./model_texts.js";
import { after, isOurs, make } from "./own_nodes.js";
import { say } from "./texts.js";

const COMMAND = "Likeness.ModelFiles";
const COLUMNS = ["state", "file", "folder", "size", "licence", "used_for", "from"];

async function loadRows() {
    const answer = await api.fetchApi("/likeness/models");
    if (!answer.ok) {
        throw new Error(say("panel.answered", { status: answer.status }));
    }
    return (await answer.json()).files;
}

function licence(row) {
    const named = row.licence ? published(row.licence) : say("panel.no_licence");
    if (row.commercial === true) {
        return named;
    }
    return say(row.commercial === false ? "panel.not_commercial" : "panel.commercial_not_stated", { licence: named });
}

function size(row) {
    if (row.size === null) {
        return say("panel.unknown");
    }
    const text = row.size >= 1e9 ? `${(row.size / 1e9).toFixed(2)} GB` : `${(row.size / 1e6).toFixed(1)} MB`;
    return row.exact ? text : say("panel.about", { size: text });
}

/** The texts of a row as they are shown; the search looks into the same ones. */
function texts(row) {
    const state = say(row.present ? "panel.there" : "panel.missing");
    return [state, row.file, row.folder, size(row), licence(row), published(row.used_for)];
}

function source(row) {
    if (!row.page?.startsWith("https://")) {
        return make("span", "", row.source);
    }
    const link = make("a", "", row.source);
    return Object.assign(link, { href: row.page, target: "_blank", rel: "noopener noreferrer" });
}

function tableRow(row) {
    const line = make("tr", row.present ? "likeness-present" : "likeness-missing");
    line.append(...texts(row).map((text) => make("td", "", text)));
    line.cells[0].title = row.found ?? "";
    line.insertCell().append(source(row));
    return line;
}

function head() {
    const line = make("tr");
    for (const column of COLUMNS) {
        const cell = make("th", "", say(`panel.${column}`));
        cell.scope = "col";
        line.append(cell);
    }
    const section = make("thead");
    section.append(line);
    return section;
}

class Panel {
    constructor() {
        this.dialog = make("dialog", "likeness-panel");
        this.dialog.setAttribute("aria-label", say("panel.label"));
        this.summary = make("p", "", say("panel.wait"));
        this.summary.setAttribute("role", "status");
        this.search = Object.assign(make("input"), { type: "search", placeholder: say("panel.search_hint") });
        this.search.setAttribute("aria-label", say("panel.search"));
        this.onlyMissing = Object.assign(make("input"), { type: "checkbox", checked: true });
        const label = make("label");
        label.append(this.onlyMissing, ` ${say("panel.only_missing")}`);
        const close = make("button", "", say("panel.close"));
        close.type = "button";
        const bar = make("div", "likeness-bar");
        bar.append(this.search, label, close);
        this.body = make("tbody");
        const table = make("table");
        table.append(head(), this.body);
        const scroller = make("div", "likeness-scroll");
        scroller.tabIndex = 0;
        scroller.append(table);
        this.dialog.append(make("h2", "", say("panel.title")), this.summary, bar, scroller);
        this.rows = [];
        close.addEventListener("click", () => this.dialog.close());
        this.search.addEventListener("input", () => this.list());
        this.onlyMissing.addEventListener("change", () => this.list());
        this.dialog.addEventListener("close", () => this.dialog.remove());
        this.dialog.addEventListener("keydown", (event) => event.stopPropagation());
    }

    async open() {
        document.body.append(this.dialog);
        this.dialog.showModal();
        try {
            this.rows = await loadRows();
        } catch (error) {
            this.summary.textContent = say("panel.unreadable", { reason: error.message });
            return;
        }
        const there = this.rows.filter((row) => row.present).length;
        this.summary.textContent = say("panel.counts", { there, all: this.rows.length });
        this.list();
    }

    list() {
        const wanted = this.search.value.trim().toLowerCase();
        const words = (row) => [...texts(row).slice(1), row.used_for, row.source, ...row.needed_by].join(" ");
        const shown = this.rows.filter(
            (row) => !(this.onlyMissing.checked && row.present) && words(row).toLowerCase().includes(wanted),
        );
        this.body.replaceChildren(...shown.map(tableRow));
    }
}

function openPanel() {
    document.querySelector("dialog.likeness-panel")?.close();
    return new Panel().open();
}

function addButtonToOldMenu() {
    const button = make("button", "", say("panel.button"));
    button.id = "likeness-model-files";
    button.type = "button";
    button.addEventListener("click", openPanel);
    app.ui?.menuContainer?.append(button);
}

app.registerExtension({
    name: COMMAND,
    commands: [{ id: COMMAND, label: say("panel.label"), icon: "pi pi-database", function: openPanel }],
    menuCommands: [{ path: ["Extensions", "Likeness"], commands: [COMMAND] }],
    setup() {
        if (!app.extensionManager) {
            addButtonToOldMenu();
        }
    },
    beforeRegisterNodeDef(nodeType, definition) {
        if (isOurs(definition)) {
            after(nodeType, "getExtraMenuOptions", (_node, _canvas, options) => {
                options.push({ content: say("panel.label"), callback: openPanel });
            });
        }
    },
});
