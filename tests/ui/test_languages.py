"""The panel of model files and the face picker speak the language of the interface, which is chosen in its settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_face_picker import SELECT, group

CHOOSE = "async (language) => { await app.ui.settings.setSettingValueAsync('Comfy.Locale', language); }"


@pytest.fixture
def chinese_tab(tab: Any) -> Iterator[Any]:
    tab.ask(CHOOSE, "zh")
    tab.reload()
    yield tab
    tab.ask(CHOOSE, "en")
    tab.reload()


def open_panel(tab: Any) -> Any:
    """Open the panel of model files by its button or its command."""
    button = tab.page.locator("#likeness-model-files")
    if button.count():
        button.click()
    else:
        tab.ask("() => { app.extensionManager.command.execute('Likeness.ModelFiles'); }")
    panel = tab.page.locator("dialog.likeness-panel")
    panel.locator("tbody tr").first.wait_for()
    return panel


def name_of_the_command(tab: Any) -> str:
    button = tab.page.locator("#likeness-model-files")
    if button.count():
        return str(button.inner_text())
    return str(tab.ask("() => app.extensionManager.command.commands.find((c) => c.id === 'Likeness.ModelFiles').label"))


def test_panel_and_picker_speak_chinese(chinese_tab: Any) -> None:
    """And English where another language is chosen that this pack has no texts in."""
    tab, page, before = chinese_tab, chinese_tab.page, len(chinese_tab.complaints)
    tab.ask("async (prompt) => { await app.loadApiJson(prompt, 'group'); }", group("0", 0.5))
    tab.show(SELECT)
    status = page.locator(".likeness-picker .likeness-status").first
    assert status.inner_text() == "先运行一次，再点击要保留的人脸；也可以在上面输入编号。"
    assert page.locator(".likeness-picker").first.get_attribute("aria-label") == "要保留的人脸"
    assert name_of_the_command(tab) in ("Likeness：模型文件", "Likeness 模型")
    panel = open_panel(tab)
    assert panel.locator("th").all_inner_texts() == ["状态", "文件", "文件夹", "大小", "许可证", "用途", "来源"]
    panel.get_by_role("searchbox", name="搜索").fill("insightface 模型包 buffalo_l，")
    cells = panel.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells[:2] == ["缺少", "buffalo_l.zip"]
    assert cells[4:6] == [
        "仅限非商业研究（insightface 模型库）；不可商用",
        "insightface 模型包 buffalo_l，只读取其中的识别网络",
    ]
    panel.get_by_role("button", name="关闭").click()
    panel.wait_for(state="detached")
    # The newest interface asks for more than the package host can answer.
    assert tab.version == "1.58.1" or tab.complaints[before:] == []
    tab.ask(CHOOSE, "fr")
    panel = open_panel(tab)
    assert panel.locator("h2").inner_text() == "Model files"
    panel.get_by_role("button", name="Close").click()
    panel.wait_for(state="detached")
