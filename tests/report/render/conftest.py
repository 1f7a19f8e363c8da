"""A toy report that has all that the report uses."""

from pathlib import Path

import pytest

from t5peft.base import paths

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path d="M0 0L9 9"/></svg>'


REPORT = """---
title: "A toy report"
---

```{python}
#| tags: [parameters]
study = "smoke"
lora_rank = 8
```

```{python}
#| label: setup
#| include: false
from IPython.display import SVG, Markdown
```

::: {.callout-important title="The *study*"}
This is `{python} study`.
:::

# The question {#sec-question}

See @sec-lora, [@tbl-static; @tbl-div], [-@eq-update], [Fig. @fig-box] and @fig-file;
@hu2022 found it.

![A file.](box.svg){#fig-file}

| a | b |
|---|--:|
| 1 | 2 |

: From *markdown*. {#tbl-md}

{{< include chapters/_lora.qmd >}}

# References {.unnumbered}

::: {#refs}
:::
"""


LORA = """# LoRA {#sec-lora}

Asked in @sec-question, see @tbl-md.

$$
y = x W + \\frac{\\alpha}{r} x A B
$$ {#eq-update}

```{python}
#| label: tbl-static
#| tbl-cap: "A caption with $r$."
Markdown(f"| rank |\\n|---:|\\n| {lora_rank} |")
```

::: {#tbl-div}

```{python}
#| output: asis
#| echo: false
print("| rank | twice |\\n|---:|---:|\\n| x | 1 |")
```

Rank `{python} lora_rank` of `{python} "a_b*c"`.

:::

::: {#fig-box}

```{python}
#| fig-alt: "a box"
SVG("box.svg")
```

A box.

:::

```{python}
#| echo: true
print(lora_rank * 1001)
```

```{python}
#| include: false
print("not shown")
```
"""


BIBLIOGRAPHY = "@article{hu2022, author={Hu, Edward}, title={LoRA}, journal={ICLR}, year={2022}}\n"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory):
    """The root of a project that holds the toy report."""
    root = tmp_path_factory.mktemp("toy")
    (root / "chapters").mkdir()
    (root / "report.qmd").write_text(REPORT)
    (root / "chapters" / "_lora.qmd").write_text(LORA)
    (root / "references.bib").write_text(BIBLIOGRAPHY)
    (root / "box.svg").write_text(SVG)
    for name in ("_quarto.yml", "params/smoke.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text((paths.CHECKOUT / name).read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T5PEFT_HOME", str(root))
        patch.setenv("PATH", str(root))  # no Quarto
        patch.delenv("QUARTO", raising=False)
        yield root


@pytest.fixture
def own(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, for one test."""
    (tmp_path / "chapters").mkdir()
    for name in ("_quarto.yml", "references.bib"):
        (tmp_path / name).write_text((toy / name).read_text())
    monkeypatch.setenv("T5PEFT_HOME", str(tmp_path))
    return tmp_path
