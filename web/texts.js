// What the scripts of this folder say, in the language of the interface. Values are JSON, so that tests can read them.
import { app } from "../../scripts/app.js";

export const TEXTS = {
    "en": {
        "panel.label": "Likeness: model files",
        "panel.title": "Model files",
        "panel.button": "Likeness models",
        "panel.wait": "Looking into the model folders …",
        "panel.search": "Search",
        "panel.search_hint": "a file, folder, system or licence",
        "panel.only_missing": "only what is missing",
        "panel.close": "Close",
        "panel.counts": "{there} of {all} files are there. A system needs only its own; a file may have any name and lie in any sub-folder.",
        "panel.unreadable": "The list cannot be read: {reason}.",
        "panel.answered": "the server answered {status}",
        "panel.state": "State",
        "panel.there": "there",
        "panel.missing": "missing",
        "panel.file": "File",
        "panel.folder": "Folder",
        "panel.size": "Size",
        "panel.licence": "Licence",
        "panel.used_for": "Used for",
        "panel.from": "From",
        "panel.about": "about {size}",
        "panel.unknown": "unknown",
        "panel.no_licence": "not stated by the publisher",
        "panel.not_commercial": "{licence}; not for commercial use",
        "panel.commercial_not_stated": "{licence}; commercial use not stated",
        "report.label": "Report of {title}",
        "picker.label": "Faces to keep",
        "picker.hint": "Run once, then click on faces to keep them; or type their numbers above.",
        "picker.previous": "Previous picture",
        "picker.next": "Next picture",
        "picker.all": "All",
        "picker.all_label": "Keep all faces",
        "picker.picture": "Picture {number} of the last run",
        "picker.place": "picture {number} of {count}",
        "picker.face": "face {number}, score {score} %",
        "picker.last_one": "One face stays chosen: choose another one first. An empty text means all.",
        "picker.by_reference": "The reference person chooses the face; numbers are not used.",
        "picker.by_node": "The numbers come from another node.",
        "picker.other_order": "The order was changed: run again to see the new numbers.",
        "picker.no_numbers": "Write numbers with commas between them, such as 0,2 or 1-3.",
        "picker.no_face": "This picture has {count} faces; there is no face {number}.",
        "picker.chosen": "{chosen} of {count} faces: {numbers}"
    },
    "zh": {
        "panel.label": "Likeness：模型文件",
        "panel.title": "模型文件",
        "panel.button": "Likeness 模型",
        "panel.wait": "正在查看模型文件夹……",
        "panel.search": "搜索",
        "panel.search_hint": "文件、文件夹、系统或许可证",
        "panel.only_missing": "只显示缺少的文件",
        "panel.close": "关闭",
        "panel.counts": "共 {all} 个文件，已有 {there} 个。每个系统只需要自己的文件；文件可以用任何名称，放在任何子文件夹里。",
        "panel.unreadable": "无法读取列表：{reason}。",
        "panel.answered": "服务器的回答是 {status}",
        "panel.state": "状态",
        "panel.there": "已有",
        "panel.missing": "缺少",
        "panel.file": "文件",
        "panel.folder": "文件夹",
        "panel.size": "大小",
        "panel.licence": "许可证",
        "panel.used_for": "用途",
        "panel.from": "来源",
        "panel.about": "约 {size}",
        "panel.unknown": "未知",
        "panel.no_licence": "发布者未说明",
        "panel.not_commercial": "{licence}；不可商用",
        "panel.commercial_not_stated": "{licence}；未说明能否商用",
        "report.label": "“{title}”的报告",
        "picker.label": "要保留的人脸",
        "picker.hint": "先运行一次，再点击要保留的人脸；也可以在上面输入编号。",
        "picker.previous": "上一张图片",
        "picker.next": "下一张图片",
        "picker.all": "全部",
        "picker.all_label": "保留全部人脸",
        "picker.picture": "上次运行的图片 {number}",
        "picker.place": "第 {number} 张图片，共 {count} 张",
        "picker.face": "人脸 {number}，分数 {score} %",
        "picker.last_one": "至少要选中一张人脸：请先选另一张。留空表示全部。",
        "picker.by_reference": "人脸由参考人物决定，不使用编号。",
        "picker.by_node": "编号来自另一个节点。",
        "picker.other_order": "排序已更改：请再运行一次，查看新的编号。",
        "picker.no_numbers": "请输入编号，用逗号分隔，例如 0,2 或 1-3。",
        "picker.no_face": "这张图片有 {count} 张人脸，没有编号为 {number} 的人脸。",
        "picker.chosen": "共 {count} 张人脸，选中 {chosen} 张：{numbers}"
    }
};

/** The language of the interface, where this folder has it; else English, as in interfaces that have no languages. */
export function language() {
    const chosen = app.ui?.settings?.getSettingValue?.("Comfy.Locale");
    return Object.hasOwn(TEXTS, chosen) ? chosen : "en";
}

/** A text in the language of the interface, with `values` in the place of its {names}. */
export function say(key, values = {}) {
    return TEXTS[language()][key].replace(/\{(\w+)\}/g, (_whole, name) => String(values[name]));
}
