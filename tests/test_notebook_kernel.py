"""What a kernel of Jupyter shows: outputs as a saved notebook has them, and what an interrupt leaves."""

from __future__ import annotations

import os
import re

import pytest
from notebook_common import parse_html, texts

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

pytestmark = pytest.mark.slow

SETUP = """
import os, signal
import geopsp, geopsp.training.precision
from lightning.pytorch.callbacks import Callback
geopsp.training.precision.resolve_precision = lambda *_: "fp32"
chips = geopsp.export_training_data("scene.tif", "labels.gpkg", "{out}/chips", "kind", 32)
data = geopsp.prepare_data("{out}/chips", batch_size=8)
data.train_rows, data.valid_rows = data.train_rows[:32], data.valid_rows[::4][:6]
model = geopsp.PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None)
geopsp.core.progress.NOTEBOOK_SECONDS = 0.0
"""

INTERRUPT = """
import geopsp.training.callbacks as callbacks
class Stop(callbacks.EpochLogger):
    def on_train_batch_start(self, *_):
        if len(self.run_rows) == 2:
            os.kill(os.getpid(), signal.SIGINT)  # as the button of the notebook does
import geopsp.training.fit
geopsp.training.fit.EpochLogger = Stop
model.fit(9, 1e-3)
"""


@pytest.fixture(scope="module")
def run(small_world, tmp_path_factory):
    """Runs code in one kernel, and returns the outputs of the cell."""
    out = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook()
    resources = {"metadata": {"path": str(small_world["folder"])}}
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources, allow_errors=True
    )
    with client.setup_kernel(env=os.environ | {"OMP_NUM_THREADS": "1"}):

        def run(code):
            cell = nbformat.v4.new_code_cell(code.replace("{out}", str(out)))
            notebook.cells.append(cell)
            client.execute_cell(cell, len(notebook.cells) - 1)
            return cell.outputs

        outputs = run(SETUP)
        assert not [each for each in outputs if each.output_type == "error"], outputs
        yield run


def kinds(outputs):
    return [each.output_type for each in outputs]


def printed(outputs):
    return "".join(each.text for each in outputs if each.output_type == "stream")


def test_objects_show_themselves(run):
    for name, classes in (("chips", 3), ("data", 3), ("model", 3), ("chips.legend", 3), ("model.evaluate()", 3)):
        shown = run(name)[-1]
        assert shown.output_type == "execute_result"
        root = parse_html(shown.data["text/html"])
        assert len([each for each in root.iter("span") if "background:#" in each.get("style", "")]) >= classes


def test_a_figure_appears_once(run):
    """As the result of a cell, before its end, and by pyplot itself."""
    run("import geopsp.training.plots")
    for code in (
        "data.show_batch(1)",
        "figure = data.show_batch(1)",
        "data.show_batch(1);",
        "model.show_results(1, which='random')\nx = 1",
    ):
        outputs = run(code)
        assert sum("image/png" in each.get("data", {}) for each in outputs) == 1, code


def test_chips_have_a_bar_and_a_report(run):
    outputs = run("geopsp.export_training_data('scene.tif', 'labels.gpkg', '{out}/more', 'kind', 32)")
    (bar,) = (each for each in outputs if each.output_type == "display_data")
    assert re.fullmatch(r"Cutting chips: (\d+) of \1 chips, \d:\d\d", bar.data["text/plain"])
    assert re.search(r"more: \d+ chips", printed(outputs))
    assert "text/html" in outputs[-1].data


def test_training_is_one_output_with_a_table_and_charts(run):
    outputs = run("model.fit(3, 1e-3, calibrate=None)")
    (live,) = (each for each in outputs if each.output_type == "display_data")
    root = parse_html(f"<div>{live.data['text/html']}</div>")
    assert re.match(r"3 epochs in \d:\d\d; best: epoch \d, mIoU 0.\d{3}", live.data["text/plain"])
    assert len(texts(root, "tr")) == 4
    assert len(list(root.iter("svg"))) == 2
    assert len(list(root.iter("polyline"))) == 3
    assert not list(root.iter("progress")), "the bar is gone"
    assert "epoch 1/3" not in printed(outputs)
    assert not any("widget" in kind for each in outputs for kind in each.get("data", {}))


def test_an_interrupt_keeps_the_best_epoch_and_says_so(run):
    outputs = run(INTERRUPT)
    (error,) = (each for each in outputs if each.output_type == "error")
    assert error.ename == "TrainingInterrupted"
    told = "\n".join(error.traceback)
    kept = r"those of epoch (\d), the best so far \(mIoU (0\.\d{3})\)"
    found = re.fullmatch(rf"Training was interrupted after 2 epochs\. The weights of the model are {kept}\.", told)
    assert found, told
    score = run("round(model.evaluate().mean_iou(), 3)")[-1]
    assert float(score.data["text/plain"].removeprefix("np.float64(").rstrip(")")) == pytest.approx(
        float(found[2]), abs=2e-3
    )


def test_a_map_is_shown_and_is_a_path(run):
    outputs = run("result = geopsp.classify_pixels('scene.tif', model, '{out}/map.tif')\nresult")
    assert len(list(parse_html(outputs[-1].data["text/html"]).iter("img"))) == 1
    outputs = run("geopsp.show_map(result, 'scene.tif')")
    assert sum("image/png" in each.get("data", {}) for each in outputs) == 1
    outputs = run("geopsp.raster_to_polygons(result, '{out}/map.gpkg')\ngeopsp.explore(result, '{out}/map.gpkg')")
    assert "application/vnd.jupyter.widget-view+json" in outputs[-1].data or outputs[-1].ename == "OptionError"
