// The panel of model files: what the systems of this pack read, what of it is missing, where it belongs, and its licence.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { after, isOurs, make } from "./own_nodes.js";

const COMMAND = "Likeness.ModelFiles";
const LABEL = "Likeness: model files";
const COLUMNS = ["", "File", "Folder", "Size", "Licence", "Used for", "From"];

async function loadRows() {
    const answer = await api.fetchApi("/likeness/models");
    if (!answer.ok) {
        throw new Error(`the server answered ${answer.status}`);
    }
    return (await answer.json()).files;
}

function commercial(row) {
    return { true: "", false: "; not for commercial use" }[String(row.commercial)] ?? "; commercial use not stated";
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
    const state = row.present ? "there" : "missing";
    const texts = [state, row.file, row.folder, row.size_text, row.licence + commercial(row), row.used_for];
    line.append(...texts.map((text) => make("td", "", text)));
    line.cells[0].title = row.found ?? "";
    line.insertCell().append(source(row));
    return line;
}

function head() {
    const line = make("tr");
    for (const text of COLUMNS) {
        const cell = make("th", "", text);
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
        this.dialog.setAttribute("aria-label", LABEL);
        this.summary = make("p", "", "Looking into the model folders …");
        this.summary.setAttribute("role", "status");
        this.search = Object.assign(make("input"), { type: "search", placeholder: "a file, folder, system or licence" });
        this.search.setAttribute("aria-label", "Search");
        this.onlyMissing = Object.assign(make("input"), { type: "checkbox", checked: true });
        const label = make("label");
        label.append(this.onlyMissing, " only what is missing");
        const close = make("button", "", "Close");
        close.type = "button";
        const bar = make("div", "likeness-bar");
        bar.append(this.search, label, close);
        this.body = make("tbody");
        const table = make("table");
        table.append(head(), this.body);
        const scroller = make("div", "likeness-scroll");
        scroller.tabIndex = 0;
        scroller.append(table);
        this.dialog.append(make("h2", "", "Model files"), this.summary, bar, scroller);
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
            this.summary.textContent = `The list cannot be read: ${error.message}.`;
            return;
        }
        const there = this.rows.filter((row) => row.present).length;
        this.summary.textContent =
            `${there} of ${this.rows.length} files are there. A system needs only its own; ` +
            "a file may have any name and lie in any sub-folder.";
        this.list();
    }

    list() {
        const wanted = this.search.value.trim().toLowerCase();
        const words = (row) => [row.file, row.folder, row.licence, row.used_for, row.source, ...row.needed_by].join(" ");
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
    const button = make("button", "", "Likeness models");
    button.id = "likeness-model-files";
    button.type = "button";
    button.addEventListener("click", openPanel);
    app.ui?.menuContainer?.append(button);
}

app.registerExtension({
    name: COMMAND,
    commands: [{ id: COMMAND, label: LABEL, icon: "pi pi-database", function: openPanel }],
    menuCommands: [{ path: ["Extensions", "Likeness"], commands: [COMMAND] }],
    setup() {
        if (!app.extensionManager) {
            addButtonToOldMenu();
        }
    },
    beforeRegisterNodeDef(nodeType, definition) {
        if (isOurs(definition)) {
            after(nodeType, "getExtraMenuOptions", (_node, _canvas, options) => {
                options.push({ content: LABEL, callback: openPanel });
            });
        }
    },
});
