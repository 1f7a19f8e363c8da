"""The digest of the code that decides changes where a result could, and only there."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import edit, read_code_anew

from t5peft.base import deciding


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package's source."""
    return shutil.copytree(deciding.FOLDER, tmp_path / "package")


def digest(folder: Path, entries: tuple[str, ...] = deciding.TRAINING) -> str:
    return deciding.Reader(folder).read(entries).digest


NOW = digest(deciding.FOLDER)


def everywhere(folder: Path, pattern: str, new: str) -> None:
    for path in folder.rglob("*.py"):
        path.write_text(re.sub(pattern, new, path.read_text()))


# --- the project's own code, in a copied tree ---------------------------------------------------


def move_a_function(tree: Path) -> None:
    """`loop.order` to `methods.table`, where numpy is imported under another name."""
    text = (tree / "training/loop.py").read_text()
    order = re.search(r"def order.*?\n\n\n", text, re.DOTALL)
    assert order
    moved = order[0].replace("np.", "numpy.")
    edit(tree / "training/loop.py", order[0], "")
    edit(tree / "training/loop.py", "order(job.study", "table.order(job.study")
    edit(
        tree / "training/loop.py",
        "import numpy as np\n",
        "import numpy as np\nfrom t5peft.methods import table\n",
    )
    path = tree / "methods/table.py"
    path.write_text(
        path.read_text().replace("import dataclass\n", "import dataclass\nimport numpy\n")
    )
    path.write_text(f"{path.read_text()}\n\n{moved}")


def move_a_constant(tree: Path) -> None:
    edit(tree / "inputs/data.py", "PAD, EOS = 0, 1", "PAD = 0")
    (tree / "inputs/ends.py").write_text("EOS: int = 1\n")
    edit(
        tree / "training/evaluation.py",
        "from t5peft.inputs.data import EOS,",
        "from t5peft.inputs.ends import EOS\nfrom t5peft.inputs.data import",
    )
    edit(tree / "inputs/data.py", "import io\n", "import io\nfrom t5peft.inputs.ends import EOS\n")


def split_a_module(tree: Path) -> None:
    """`fast` into a package: dropout in a module of its own, which the other half imports."""
    text = (tree / "training/fast.py").read_text()
    head = text[: text.index("Model = TypeVar")]
    at = text.index("def dropout_layer")
    (tree / "training/fast.py").unlink()
    (tree / "training/quick").mkdir()
    (tree / "training/quick/__init__.py").write_text(
        "from .arithmetic import SAME, packed, probe, round_frozen, speed_up\n"
    )
    (tree / "training/quick/drop.py").write_text(head + text[at:])
    names = "from .drop import dropout, dropout_layer\n"
    (tree / "training/quick/arithmetic.py").write_text(
        text[:at].replace("FUSED =", f"{names}\nFUSED =")
    )
    everywhere(tree, r"\bfast\.(speed_up|round_frozen|packed|probe|SAME)", r"quick.\1")
    edit(tree / "training/jobs.py", "evaluation, fast", "evaluation, quick")
    edit(tree / "training/evaluation.py", "training import fast", "training import quick")


def rename_a_module(tree: Path) -> None:
    (tree / "methods/lora.py").rename(tree / "methods/low_rank.py")
    edit(tree / "methods/table.py", "libraries, lora, soft", "libraries, low_rank, soft")
    edit(tree / "methods/table.py", " lora.inject", " low_rank.inject")


def rename_a_function(tree: Path) -> None:
    everywhere(tree, r"\badd_gradients\b", "accumulate")


def rename_a_class(tree: Path) -> None:
    everywhere(tree, r"\bLoRALinear\b", "LowRank")


def rename_a_constant(tree: Path) -> None:
    everywhere(tree, r"\bEOS\b", "END")


def rename_a_local_import(tree: Path) -> None:
    edit(
        tree / "methods/table.py",
        "sites import claim, freeze",
        "sites import claim as take, freeze",
    )
    edit(tree / "methods/table.py", "    claim(model", "    take(model")


def import_locally(tree: Path) -> None:
    edit(tree / "methods/soft_prompt.py", "import torch\n", "")
    edit(
        tree / "methods/soft_prompt.py",
        "        batch, tokens =",
        "        import torch\n\n        batch, tokens =",
    )


def import_otherwise(tree: Path) -> None:
    edit(
        tree / "training/loop.py",
        "from accelerate.utils import gather_object, set_seed",
        "import accelerate.utils as u",
    )
    edit(
        tree / "training/jobs.py",
        "from accelerate.utils import set_seed",
        "import accelerate.utils as u",
    )
    everywhere(tree, r"\b(set_seed|gather_object)\(", r"u.\1(")


def rename_a_variable(tree: Path) -> None:
    everywhere(tree, r"\bmiddle\b", "between")


def change_a_comment(tree: Path) -> None:
    edit(tree / "methods/lora.py", "# x W + (alpha / r) x A B", "# the sum")


def change_a_docstring(tree: Path) -> None:
    edit(tree / "methods/lora.py", "A frozen linear map with a trained", "A linear map with a")


def remove_a_docstring(tree: Path) -> None:
    edit(
        tree / "methods/sites.py",
        '    """Take every parameter out of training; what is injected later trains because it is new."""\n',
        "",
    )


def change_annotations(tree: Path) -> None:
    edit(
        tree / "training/loop.py",
        "def train_epoch(job: Job, epoch: int, most: int | None = None) -> np.ndarray:",
        "def train_epoch(job, epoch: object, most=None):",
    )
    edit(tree / "training/loop.py", "losses: list[float] = []", "losses = []")


def change_the_layout(tree: Path) -> None:
    for path in tree.rglob("*.py"):
        path.write_text(ast.unparse(ast.parse(path.read_text())))


def change_what_is_said(tree: Path) -> None:
    edit(tree / "training/loop.py", 'f"loss {losses[-1]:.4f}"', '"well"')
    edit(
        tree / "training/loop.py", '"lower the learning rate or set precision=fp32"', '"begin anew"'
    )
    edit(tree / "runs/make.py", "test accuracy {100 * done['test_accuracy']:.2f}%", "done")
    edit(tree / "base/progress.py", "SECONDS = 5.0", "SECONDS = 9.0")
    edit(tree / "base/errors.py", "expected {expected}", "wanted {expected}")


def change_how_things_are_kept(tree: Path) -> None:
    edit(tree / "base/files.py", "0o644", "0o600")
    edit(tree / "base/paths.py", '".cache"', '"cache"')
    edit(tree / "runs/make.py", '"best_epoch": best["epoch"],', '"best": best["epoch"],')
    edit(tree / "inputs/data.py", '"inputs.data._tokenize"', '"inputs.data.Tokens"')


def change_a_plot(tree: Path) -> None:
    path = tree / "report/plots.py"
    path.write_text(path.read_text() + "\nMARK = 1\n")


SAME = [
    move_a_function, move_a_constant, split_a_module, rename_a_module, rename_a_function,
    rename_a_class, rename_a_constant, rename_a_local_import, import_locally, import_otherwise,
    rename_a_variable, change_a_comment, change_a_docstring, remove_a_docstring,
    change_annotations, change_the_layout, change_what_is_said, change_how_things_are_kept,
    change_a_plot,
]  # fmt: skip


@pytest.mark.parametrize("change", SAME)
def test_what_changes_no_result_changes_no_digest(
    change: Callable[[Path], None], tree: Path
) -> None:
    change(tree)
    for path in tree.rglob("*.py"):
        compile(path.read_text(), path.name, "exec")
    assert digest(tree) == NOW


OTHER = {
    "LoRA's scale": ("methods/lora.py", "alpha / rank", "alpha * rank"),
    "the end of sequence": ("inputs/data.py", "PAD, EOS = 0, 1", "PAD, EOS = 0, 2"),
    "the attention's scale": ("training/fast.py", "dropout_p=p, scale=1.0", "dropout_p=p"),
    "dropout": ("training/fast.py", "ctx.scale = 1 / (1 - p)", "ctx.scale = 1 - p"),
    "dropout's bits": ("training/fast.py", "round(p * 2**16)", "round(p * 2**15)"),
    "the loader of the backbone": ("training/jobs.py", "backbone.load(study", "backbone.load_on_meta(study"),
    "the loader of the reviews": ("inputs/data.py", "tables.read(place)", "tables.table(place)"),
    "the loader of transformers": ("inputs/backbone.py", "T5ForConditionalGeneration.from_pretrained(", "T5ForConditionalGeneration.from_config("),
    "an optimizer's argument": ("training/jobs.py", "fused=True,", "fused=True, weight_decay=0.0,"),
    "the optimizer": ("training/jobs.py", "torch.optim.AdamW(", "torch.optim.Adam("),
    "a default": ("inputs/data.py", "placeholders: int = 0, multiple: int = 1\n    ) -> tuple[torch", "placeholders: int = 1, multiple: int = 1\n    ) -> tuple[torch"),
    "a default that is a constant": ("inputs/data.py", "MULTIPLE = 16", "MULTIPLE = 8"),
    "a third party's import": ("methods/lora.py", "from torch import Tensor, nn", "from torch import Tensor\nfrom torch.ao import nn"),
    "a third party's seed": ("training/loop.py", "from accelerate.utils import gather_object, set_seed", "from accelerate.utils import gather_object\nfrom transformers import set_seed"),
    "one of our imports": ("methods/soft_prompt.py", "from t5peft.methods.sites import Sites, find, replace", "from t5peft.methods.sites import Sites, find, claim as replace"),
    "a decorator": ("training/evaluation.py", "@torch.inference_mode()\ndef predict", "@torch.enable_grad()\ndef predict"),
    "the seed": ("training/loop.py", "set_seed(1000 * job", "set_seed(100 * job"),
    "the order": ("training/loop.py", "[study.seed, epoch,", "[study.seed,"),
    "the number of epochs": ("training/loop.py", "study.epochs + 1)", "study.epochs)"),
    "the choice of the best": ("training/loop.py", 'epoch["test_accuracy"])', 'epoch["loss"])'),
    "what is gone on with": ("training/checkpoint.py", 'load_state_dict(held["optimizer"])', "zero_grad()"),
    "a label": ("inputs/data.py", 'LABELS = ("negative", "positive")', 'LABELS = ("positive", "negative")'),
    "the cleaning": ("inputs/data.py", 'text.lower().replace("<br />", " ")', 'text.replace("<br />", " ")'),
    "greedy": ("training/evaluation.py", "GenerationConfig(\n", "GenerationConfig(num_beams=2,\n"),
    "a library's argument": ("methods/libraries.py", "lora_dropout=0.0", "lora_dropout=0.1"),
    "a run's property": ("methods/table.py", 'self.settings["tokens"] if', 'self.settings["tokens"] + 1 if'),
    "what an import does": ("training/fast.py", "Model = TypeVar", 'torch.set_float32_matmul_precision("medium")\nModel = TypeVar'),
    "what a package's import does": ("__init__.py", 'checked."""', 'checked."""\nimport torch\ntorch.set_num_threads(1)'),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
def test_what_changes_a_result_changes_the_digest(what: str, tree: Path) -> None:
    name, old, new = OTHER[what]
    text = (tree / name).read_text()
    assert old in text
    (tree / name).write_text(text.replace(old, new, 1))
    changed = deciding.Reader(tree).read(deciding.TRAINING)
    assert changed.digest != NOW
    known = {each.digest for each in deciding.code().definitions}
    assert {each.digest for each in changed.definitions} - known, "which one changed is told"


def test_every_class_that_the_code_is_handed_counts_or_is_known_not_to() -> None:
    """What a function only gets as an argument, no name in it leads to."""
    folder = deciding.FOLDER
    modules = {str(p.relative_to(folder)): ast.parse(p.read_text()) for p in folder.rglob("*.py")}
    ours = {x.name for tree in modules.values() for x in tree.body if isinstance(x, ast.ClassDef)}
    counted = deciding.code().definitions
    handed: set[str] = set()
    for each in counted:
        file, line = each.place.split(":")
        (node,) = (x for x in modules[file].body if x.lineno == int(line))
        for part in ast.walk(node):
            for name in ("annotation", "returns"):
                if annotation := getattr(part, name, None):
                    handed |= set(re.findall(r"\w+", ast.unparse(annotation))) & ours
    assert "Run" in handed
    assert handed - {each.name.split(".")[-1] for each in counted} == {"Epoch", "Study", "Trace"}


def test_what_is_remembered_of_a_source_is_of_that_source(
    home: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "FOLDER", tree)

    def found() -> str:
        read_code_anew()
        return deciding.code().digest

    assert found() == found() == NOW
    (memo,) = (home / ".cache" / "code").iterdir()
    for damaged in ("", "{}", "[1]", '["0", [["a"]]]'):
        memo.write_text(damaged)
        assert found() == NOW
    edit(tree / "methods/lora.py", "alpha / rank", "alpha * rank")
    assert found() == digest(tree) != NOW
    read_code_anew()


# --- names, in small packages --------------------------------------------------------------------

ENTRY = ("a.f",)


def package(folder: Path, **modules: str) -> Path:
    """A package of these modules; `a.f` is where it begins."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in modules.items():
        compile(text, name, "exec")
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


SHADOWED = {  # a module's `data`, which each of these hides
    "parameter": "def f(data): return data",
    "variable": "def f(x):\n data = x\n return data",
    "variable bound later": "def f(x):\n if x: return data\n data = x",
    "loop": "def f(x):\n for data in x: print(data)\n return data",
    "with": "def f(x):\n with x as data: return data",
    "exception": "def f(x):\n try: x()\n except OSError as data: return data",
    "pattern": "def f(x):\n match x:\n  case [data, *_]: return data",
    "rest of a pattern": "def f(x):\n match x:\n  case {**data}: return data",
    "walrus": "def f(x): return (data := x) and data",
    "walrus in a comprehension": "def f(x): return [(data := y) for y in x] and data",
    "lambda": "f = lambda data: data",
    "comprehension": "def f(x): return [data for data in x]",
    "dict comprehension": "def f(x): return {data: data for data in x if data}",
    "nested function": "def f(x):\n def data(): pass\n return data()",
    "function around": "def f(data):\n def g(): return data\n return g",
    "function around, nonlocal": "def f(data):\n def g():\n  nonlocal data\n  data = data + 1\n return g",
    "star": "def f(*data, **x): return data",
    "class attribute": "class f:\n data = 1\n twice = data + data",
    "field": "class f:\n data: int = 1\n twice = data",
    "method": "class f:\n def data(self): pass\n again = data",
    "loop in a class": "class f:\n for data in (1, 2): print(data)",
    "import": "def f():\n import os as data\n return data",
    "import of ours": "def f():\n from t5peft.b import g as data\n return data",
}

SEEN = {  # the module's `data` all the same
    "plain": "def f(): return data",
    "attribute": "def f(x): return x.data + data",
    "default": "def f(data=data): return data",
    "default of a lambda": "f = lambda x=data: x",
    "decorator": "@data\ndef f(): pass",
    "base": "class f(data): pass",
    "first iterable": "def f(): return [data for data in data]",
    "beside a comprehension": "def f(x): return [data for data in x] + data",
    "beside a lambda": "def f(x): return (lambda data: data)(data)",
    "nested function": "def f():\n def g(): return data\n return g",
    "global": "def f(x):\n global data\n return data",
    "global in a nested function": "def f(data):\n def g():\n  global data\n  return data\n return g",
    "method behind an attribute": "class f:\n data = 1\n def g(self): return data",
    "comprehension behind an attribute": "class f:\n data = 1\n x = [y + data for y in (1, 2)]",
    "class, before it is bound": "class f:\n data = data",
    "field, before it is bound": "class f:\n data: int = data",
    "keyword's value": "def f(x): return x(data=data)",
    "format": "def f(): return f'{data}'",
    "base of a nested class": "def f():\n class g(data): data = 1\n return g",
}


@pytest.mark.parametrize("what", SHADOWED)
def test_a_shadowed_name_does_not_count(what: str, tmp_path: Path) -> None:
    found = {
        digest(
            package(tmp_path / "p", a=f"data = {value}\n{SHADOWED[what]}\n", b="def g(): pass"),
            ENTRY,
        )
        for value in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("what", SEEN)
def test_a_name_that_is_not_shadowed_counts(what: str, tmp_path: Path) -> None:
    found = {
        digest(package(tmp_path / "p", a=f"data = {value}\n{SEEN[what]}\n"), ENTRY)
        for value in ("1", "2")
    }
    assert len(found) == 2


ALIKE = {  # one definition, written in several ways
    "a constant": [
        {"a": "def f(): return 16"},
        {"a": "N = 16\ndef f(): return N"},
        {"a": "N: int = 16\ndef f(): return N"},
        {"a": "M, N = 0, 16\ndef f(): return N"},
        {"a": "from t5peft.b import N as M\ndef f(): return M", "b": "N = 16"},
        {"a": "from t5peft import b\ndef f(): return b.N", "b": "N = 16"},
        {"a": "def f():\n from t5peft import b\n return b.N", "b": "N = 16"},
    ],
    "a third party": [
        {"a": "import torch\ndef f(x): return torch.nn.functional.relu(x)"},
        {"a": "import torch.nn.functional\ndef f(x): return torch.nn.functional.relu(x)"},
        {"a": "import torch.nn.functional as F\ndef f(x): return F.relu(x)"},
        {"a": "from torch.nn import functional as F\ndef f(x): return F.relu(x)"},
        {"a": "from torch.nn.functional import relu\ndef f(x): return relu(x)"},
        {"a": "def f(x):\n from torch import nn\n return nn.functional.relu(x)"},
        {"a": "from t5peft.b import nn\ndef f(x): return nn.functional.relu(x)", "b": "from torch import nn"},
    ],
    "a function": [
        {"a": "def f(): return g()\ndef g(): return f()"},
        {"a": "def h(): return f()\ndef f(): return h()"},
        {"a": "from t5peft.b import g\ndef f(): return g()", "b": "from t5peft.a import f\ndef g(): return f()"},
        {"a": "import t5peft.b\ndef f(): return t5peft.b.g()", "b": "import t5peft.a as x\ndef g(): return x.f()"},
        {"a": "from .b import g\ndef f(): return g()", "b": "from . import a\ndef g(): return a.f()"},
        {"a": "from .b import g\ndef f(): return g()", "b/__init__": "from .c import g", "b/c": "from ..a import f\ndef g(): return f()"},
        {"a": "from t5peft.b import c\ndef f(): return c.g()", "b/c": "from t5peft import a\ndef g(): return a.f()"},
    ],
    "a variable": [
        {"a": "def f(x):\n y = x\n return lambda: y"},
        {"a": "def f(x: int) -> None:\n z: int\n z = x\n return lambda: z"},
        {"a": "def f(x):\n progress: int = x\n return lambda: progress"},
    ],
    "what is said": [
        {"a": "def f(x):\n y = x\n return y"},
        {"a": "def f(x):\n print(x)\n y = x\n return y"},
        {"a": "import warnings\ndef f(x):\n warnings.warn('!')\n y = x\n return y"},
        {"a": "from t5peft.base.progress import Bar\ndef f(x):\n b = Bar(x)\n y = x\n b.add(1)\n return y", "base/progress": "class Bar: pass"},
        {"a": "from t5peft.base.progress import Bar\ndef f(x):\n with Bar(x) as b:\n  y = x\n  b.add(1)\n return y", "base/progress": "class Bar: pass"},
    ],
    "what is said while something else is held": [
        {"a": "def f(x):\n with open(x) as y:\n  return y"},
        {"a": "from t5peft.base.progress import Bar\ndef f(x):\n with Bar(x), open(x) as y:\n  return y", "base/progress": "class Bar: pass"},
    ],
    "what is raised": [
        {"a": "def f(x):\n if x: raise E('a')\nclass E(Exception): pass"},
        {"a": "from t5peft.base.errors import E\ndef f(x):\n if x: raise E('b') from None", "base/errors": "class E(Exception): pass"},
    ],
}  # fmt: skip

PAIRS = [(what, number) for what, ways in ALIKE.items() for number in range(1, len(ways))]


@pytest.mark.parametrize(("what", "number"), PAIRS)
def test_one_definition_has_one_digest(what: str, number: int, tmp_path: Path) -> None:
    one, other = ALIKE[what][0], ALIKE[what][number]
    assert digest(package(tmp_path / "p", **one), ENTRY) == digest(
        package(tmp_path / "q", **other), ENTRY
    )


UNLIKE = {
    "a parameter's name": ("def f(a, b): return a - b", "def f(b, a): return b - a"),
    "an attribute": ("def f(x): return x.a", "def f(x): return x.b"),
    "a class's attribute": ("class f:\n a = 1", "class f:\n b = 1"),
    "a method": ("class f:\n def a(self): pass", "class f:\n def b(self): pass"),
    "a keyword": ("def f(x): return x(a=1)", "def f(x): return x(b=1)"),
    "a slice": ("def f(x): return x[1:]", "def f(x): return x[:1]"),
    "a number's type": ("def f(): return 1", "def f(): return 1.0"),
    "a text that is no docstring": ("def f(): return 'a'", "def f(): return 'b'"),
    "variables that swap": ("def f(x, y):\n a, b = x, y\n return a", "def f(x, y):\n a, b = x, y\n return b"),
    "a variable and a module's name": ("b = 1\ndef f(x):\n a = x\n return a", "b = 1\ndef f(x):\n a = x\n return b"),
    "what is raised": ("def f(): raise ValueError", "def f(): raise OSError"),
    "that it is raised": ("def f(x):\n if x: raise ValueError", "def f(x):\n if x: pass"),
    "what is caught": ("def f(x):\n try: x()\n except OSError: pass", "def f(x):\n try: x()\n except ValueError: pass"),
    "a branch at the top": ("if g: h = 1\nelse: h = 2\ndef f(): return h", "if g: h = 1\nelse: h = 3\ndef f(): return h"),
    "an import in a branch": ("try:\n import os as h\nexcept E: h = 0\ndef f(): return h", "try:\n import sys as h\nexcept E: h = 0\ndef f(): return h"),
    "a branch of local imports": ("def f():\n if g: import os as h\n else: import sys as h\n return h", "def f():\n if g: import sys as h\n else: import os as h\n return h"),
    "what is added to a constant": ("h = (1,)\nh += (2,)\ndef f(): return h", "h = (1,)\nh += (3,)\ndef f(): return h"),
    "a value that is computed": ("h = g(1)\ndef f(): return h", "h = g(2)\ndef f(): return h"),
    "a module as a value": ("from t5peft import a\ng = 1\ndef f(): return vars(a)", "from t5peft import a\ng = 2\ndef f(): return vars(a)"),
    "a field's default": ("class f:\n a: int = 1", "class f:\n a: int = 2"),
    "a starred parameter": ("def f(*a): return a", "def f(a): return a"),
    "await": ("async def f(x): await x", "def f(x): x"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNLIKE)
def test_two_definitions_have_two_digests(what: str, tmp_path: Path) -> None:
    one, other = (digest(package(tmp_path / "p", a=text), ENTRY) for text in UNLIKE[what])
    assert one != other
